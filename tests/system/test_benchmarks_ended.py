"""A benchmark that is told to end takes the services that it started with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from splitformer.serving.local import is_serving

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks", "wire-types", "--quick"]
"""It needs the embedded model alone, and runs for a while."""


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def serves(services: list[psutil.Process]) -> bool:
    """True once the decoder service, which is started last, does."""
    command = services[-1].cmdline()
    if "--port" not in command:  # still the benchmark's own: it has been forked, and no more
        return False
    port = command[command.index("--port") + 1]
    return is_serving(f"127.0.0.1:{port}")


@pytest.mark.parametrize(("number", "at_work"), [(signal.SIGHUP, False), (signal.SIGTERM, True)])
def test_no_service_outlives_it(number: signal.Signals, at_work: bool) -> None:
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.DEVNULL) as benchmark:
        own = psutil.Process(benchmark.pid)
        until(lambda: len(own.children()) == 2)
        services = own.children()
        if at_work:
            until(lambda: serves(services))
        benchmark.send_signal(number)
        assert benchmark.wait(timeout=30) == 128 + number
    assert not [service for service in services if service.is_running()]
