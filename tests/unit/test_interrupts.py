"""Tests that interrupt what they start work however pytest itself was started."""

from __future__ import annotations

import subprocess
import sys


def test_what_tests_start_can_be_interrupted_though_pytest_was_told_to_ignore_it() -> None:
    inner = "tests/unit/test_client_command.py::test_an_interrupt_is_quiet"
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-m", "pytest", "-q", inner],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
