"""Bring up a Docker engine for the container tests, and take down what was brought up.

Usage: `python tools/container_engine.py start|stop`. Where no engine answers, and we are root on a
Debian, `start` installs what is missing (docker.io, docker-compose, debootstrap, iptables) and
starts `dockerd`; otherwise it says why there is none and exits with 3. `stop` ends a `dockerd` that
`start` started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

_PACKAGES = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
    "iptables": "iptables",
}
_RECORD = Path(__file__).resolve().parent.parent / ".cache/dockerd.pid"
_PATIENCE_SECONDS = 60.0


def answers() -> bool:
    """True if an engine can be used."""
    docker = shutil.which("docker")
    return docker is not None and _quiet(docker, "info")


def start() -> str:
    """Return why there is no engine; empty once there is one."""
    missing = [package for tool, package in _PACKAGES.items() if not shutil.which(tool)]
    if missing or not answers():
        if os.geteuid():
            return "no engine answers, and only root may install or start one"
        if missing and not _install(missing):
            return f"cannot install {', '.join(missing)}"
    return "" if answers() else _start_daemon()


def _install(packages: list[str]) -> bool:
    if shutil.which("apt-get") is None:
        return False
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    _quiet("apt-get", "update", "-qq")
    return subprocess.run(command, env=quiet, stdout=2, check=False).returncode == 0


def _start_daemon() -> str:
    _RECORD.parent.mkdir(exist_ok=True)
    log = _RECORD.with_suffix(".log")
    with log.open("wb") as output:
        daemon = subprocess.Popen(["dockerd"], stdout=output, stderr=output, start_new_session=True)
    _RECORD.write_text(str(daemon.pid))
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and daemon.poll() is None:
        if answers():
            return ""
        time.sleep(0.2)
    stop()
    last = log.read_text(errors="replace").splitlines()[-1:]
    return f"dockerd does not start: {''.join(last)}"


def stop() -> None:
    """End the daemon that we started, if we did."""
    if not _RECORD.is_file():
        return
    pid = int(_RECORD.read_text())
    _RECORD.unlink()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
        for _ in range(300):
            os.kill(pid, 0)
            time.sleep(0.1)


def _quiet(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def main() -> int:
    """Read the command line."""
    if sys.argv[1:] == ["stop"]:
        stop()
        return 0
    why_not = start()
    if why_not:
        print(f"container_engine: {why_not}; the container tests are skipped", file=sys.stderr)
    return 3 if why_not else 0


if __name__ == "__main__":
    sys.exit(main())
