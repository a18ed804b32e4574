"""A signal ends what it should, wherever it comes, and however pytest itself was started."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest


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


PROGRAM = """
import signal, sys, time
from splitformer.serving.ending import unwind_on

class Falling:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)  # what this raises is dropped

unwind_on((signal.SIGTERM,), lambda number: {error})
try:
    Falling()
    time.sleep(30)
finally:
    print("unwound")
"""


@pytest.mark.parametrize(
    ("error", "status"),
    [("SystemExit(128 + number)", 128 + signal.SIGTERM), ("KeyboardInterrupt()", -signal.SIGINT)],
)
def test_a_signal_that_comes_in_a_finaliser_is_not_lost(error: str, status: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(error=error)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (status, "unwound\n")


def test_a_signal_that_is_ignored_stays_so() -> None:
    code = (
        "import signal; from splitformer.serving.ending import unwind_on;"
        "unwind_on((signal.SIGHUP,), SystemExit); signal.raise_signal(signal.SIGHUP); print('on')"
    )
    command = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "on\n"
