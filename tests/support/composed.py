"""A set-up of deploy/ under a name of its own, run by whichever Compose is installed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from tests.support.images import tag
from tools.compose import FOLDER, compose

PROJECT = "splitformertest"
_PATIENCE_SECONDS = 120.0


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def within(seconds: float, holds: Callable[[], Any], what: str) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


@dataclass
class Composed:
    """A project over some of the Compose files.

    Attributes:
        engine: The engine it runs on.
        stand_ins: Tags of the stand-ins.
        files: Names in deploy/; none: those that Compose takes by itself.
        extra: More variables.
    """

    engine: docker.DockerClient
    stand_ins: dict[str, str]
    files: Sequence[str] = ()
    extra: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(
        default_factory=lambda: {
            name: free_port() for name in ("ENCODER", "DECODER", "PROMETHEUS", "GRAFANA")
        }
    )

    @property
    def environment(self) -> dict[str, str]:
        """Variables for Compose; they win over deploy/.env."""
        return {
            **os.environ,
            **{f"{name}_PORT": str(port) for name, port in self.ports.items()},
            **{f"{name.upper()}_IMAGE": tag(name) for name in ("encoder", "decoder", "client")},
            **{
                f"{k.upper()}_IMAGE": self.stand_ins[k]
                for k in ("prometheus", "grafana", "haproxy")
            },
            "COMPOSE_PROJECT_NAME": PROJECT,
            "NETWORK": PROJECT,
            **({"COMPOSE_FILE": ":".join(self.files)} if self.files else {}),
            **self.extra,
        }

    @property
    def encoder(self) -> str:
        """host:port of the encoders, published."""
        return f"127.0.0.1:{self.ports['ENCODER']}"

    @property
    def decoder(self) -> str:
        """host:port of the decoders, published."""
        return f"127.0.0.1:{self.ports['DECODER']}"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Compose in deploy/."""
        return self._run([*compose(), *arguments])

    def verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run tools/compose.py, which `make up` is."""
        return self._run([sys.executable, str(FOLDER.parent / "tools/compose.py"), *arguments])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=FOLDER,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def up(self, *arguments: str) -> None:
        """Start what is not running yet, and wait until all are healthy."""
        done = self.run("up", "-d", "--no-build", *arguments)
        assert done.returncode == 0, done.stderr + self.logs()
        self.wait_healthy()

    def down(self) -> None:
        """Stop and remove everything, volumes too."""
        done = self.verb("down", "--volumes")
        assert done.returncode == 0, done.stderr

    def logs(self) -> str:
        """The last lines of every container."""
        return self.run("logs", "--tail=20").stdout

    def containers(self, service: str = "") -> list[Container]:
        """The project's containers, or those of one service, in order of their numbers."""
        labels = [f"com.docker.compose.project={PROJECT}"]
        if service:
            labels.append(f"com.docker.compose.service={service}")
        found = self.engine.containers.list(all=True, filters={"label": labels})
        return sorted(found, key=lambda each: str(each.name))

    def wait_healthy(self) -> None:
        """Wait until every container is."""
        within(_PATIENCE_SECONDS, lambda: all(map(healthy, self.containers())), self.logs())


def assert_nothing_left(composed: Composed) -> None:
    """No container, network or volume of the project is there."""
    labelled = {"label": f"com.docker.compose.project={PROJECT}"}
    assert composed.containers() == []
    assert composed.engine.networks.list(filters=labelled) == []
    assert composed.engine.volumes.list(filters=labelled) == []


def healthy(container: Container) -> bool:
    """True if its health check says so now."""
    container.reload()
    return bool(container.attrs["State"].get("Health", {}).get("Status") == "healthy")


def short_id(container: Container) -> str:
    """Its host name, as Compose leaves it."""
    return str(container.id)[:12]


def events(container: Container) -> list[str]:
    """Lines of its log."""
    text: bytes = container.logs()
    return text.decode(errors="replace").splitlines()


def folder_of(name: str) -> Path:
    """A folder kept between runs, outside version control."""
    return FOLDER.parent / ".cache/containers" / name
