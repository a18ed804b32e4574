"""`make up` and `make down`: the containers of deploy/, with whichever Compose is installed.

Usage: `python tools/compose.py up|down [ARGUMENTS]` or `python tools/compose.py roll SERVICE...`.

`up` builds what is missing, waits until every
service is healthy and prints the addresses; if a container ends instead, it prints the container's
last line and exits with 1. ARGUMENTS go to `docker compose up`, for example `--scale decoder=3`;
the files are those that COMPOSE_FILE names, in the shell or in deploy/.env.

`roll` replaces every container of a service behind the balancer by one of the image and settings
that are named now, one after the other: the new one is healthy before the old one is stopped, which
finishes what it has. Python's standard library is all it needs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "deploy"
_PATIENCE_SECONDS = 300.0
_POLL_SECONDS = 0.5
_PORTS = {
    "50051/tcp": "encoder",
    "50052/tcp": "decoder",
    "9090/tcp": "prometheus",
    "3000/tcp": "grafana",
}


@dataclass(frozen=True)
class Container:
    """A container of ours as the engine describes it."""

    described: dict[str, Any]

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.described["Name"]).lstrip("/")

    @property
    def service(self) -> str:
        """The service in the Compose files that it belongs to."""
        return str(self.described["Config"]["Labels"]["com.docker.compose.service"])

    @property
    def healthy(self) -> bool:
        """True once its health check has succeeded."""
        return bool(self.described["State"].get("Health", {}).get("Status") == "healthy")

    @property
    def failed(self) -> bool:
        """True if it has ended, or has been started again because it had."""
        state = self.described["State"]["Status"]
        return state in ("exited", "dead", "restarting") or self.described["RestartCount"] > 0

    @property
    def addresses(self) -> list[str]:
        """Where this machine reaches it."""
        ports = self.described["NetworkSettings"]["Ports"] or {}
        return [
            f"{_PORTS.get(inside, inside):12}{each['HostIp']}:{each['HostPort']}"
            for inside, bound in ports.items()
            for each in bound or ()
        ]


def compose() -> list[str]:
    """Return the command: `docker compose`, or docker-compose where that is what there is."""
    if _succeeds("docker", "compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    sys.exit("compose: neither `docker compose` nor docker-compose is installed")


def containers() -> list[Container]:
    """Return the project's containers."""
    ids = _output(*compose(), "ps", "-q", "-a") if compose()[0] == "docker" else ""
    ids = ids or _output(*compose(), "ps", "-q")
    found = json.loads(_output("docker", "inspect", *ids.split())) if ids.split() else []
    return sorted(map(Container, found), key=lambda each: each.name)


def up(arguments: list[str]) -> int:
    """Start everything and wait."""
    if not _succeeds("docker", "info"):
        sys.exit("compose: no Docker engine answers; is it started, and may you use it?")
    return _started(arguments) or _say(each for found in containers() for each in found.addresses)


def roll(service: str) -> int:
    """Replace a service's containers one by one."""
    old = [each for each in containers() if each.service == service]
    more = ["--no-deps", "--no-recreate", "--scale", f"{service}={len(old) + 1}", service]
    for each in old:
        if status := _started(more, service):
            return status
        for command in ("stop", "rm"):
            if not _succeeds("docker", command, each.name):
                return _say([f"{each.name}: docker {command} failed"], 1)
        print(f"{each.name} replaced")
    return 0 if old else _say([f"no container of {service} is there"], 1)


def _started(arguments: list[str], service: str = "") -> int:
    """Let Compose start containers, wait until they are healthy, and say what went wrong.

    With a service, only its containers are waited for.
    """
    started = subprocess.run([*compose(), "up", "-d", *arguments], cwd=FOLDER, check=False)
    deadline = time.monotonic() + (_PATIENCE_SECONDS if started.returncode == 0 else 0)
    while True:
        found = [each for each in containers() if service in ("", each.service)]
        if started.returncode == 0 and found and all(each.healthy for each in found):
            return 0
        if failed := [each for each in found if each.failed]:
            return _say(map(_last_words, failed), 1)
        if time.monotonic() >= deadline:
            return _say((f"{each.name}: not healthy" for each in found if not each.healthy), 1)
        time.sleep(_POLL_SECONDS)


def _last_words(container: Container) -> str:
    done = subprocess.run(
        ["docker", "logs", "--tail", "1", container.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"{container.name} ended: {done.stdout.strip() or 'without a word'}"


def _say(lines: Any, status: int = 0) -> int:
    for line in lines:
        print(line, file=sys.stderr if status else sys.stdout)
    return status


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    return done.stdout


def main() -> int:
    """Read the command line."""
    match sys.argv[1:]:
        case ["up", *arguments]:
            return up(arguments)
        case ["roll", *services] if services:
            return next(filter(None, map(roll, services)), 0)
        case ["down", *arguments]:
            command = [*compose(), "down", "--remove-orphans", *arguments]
            return subprocess.run(command, cwd=FOLDER, env=os.environ, check=False).returncode
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
