"""Our images, built by the Dockerfile as it is, on stand-ins, from wheels that pip fetched here."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from tests.support.markdown import ROOT
from tools.image_requirements import PLATFORMS, PYTHON, SETS

SERVICES = {"encoder": "native", "decoder": "native", "client": "client"}
"""The images, and the file in deploy/requirements that each is made from."""

WITH_TORCH = {"decoder": "cpu"}
"""The same for an image with torch; one will do."""


def tag(service: str, requirements: str = "") -> str:
    """The tag that tests build an image under."""
    return f"splitformer-test-{service}" + (f"-{requirements}" if requirements == "cpu" else "")


def build(
    engine: docker.DockerClient,
    stand_ins: dict[str, str],
    folder: Path,
    images: dict[str, str] = SERVICES,
) -> None:
    """Build images; what did not change since the last time costs seconds."""
    _fetch(folder, {"build", *images.values()})
    with _served(folder) as address:
        for service, requirements in images.items():
            engine.images.build(
                path=str(ROOT),
                dockerfile="deploy/Dockerfile",
                tag=tag(service, requirements),
                network_mode="host",
                rm=True,
                buildargs={
                    "BUILD_IMAGE": stand_ins["build"],
                    "BASE_IMAGE": stand_ins["base"],
                    "SERVICE": service,
                    "REQUIREMENTS": requirements,
                    "REVISION": "test",
                    "PIP_NO_INDEX": "1",
                    "PIP_FIND_LINKS": address,
                    "PIP_EXTRA_INDEX_URL": "",
                },
            )


def _fetch(folder: Path, names: set[str]) -> None:
    """Let pip, as it is set up on this machine, fetch what is pinned and not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in SETS:
        if each.name in names:
            command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps"]
            command += ["--require-hashes", "--only-binary=:all:", "--python-version", PYTHON]
            command += [f"--platform={platform}" for platform in PLATFORMS]
            command += ["--find-links", str(folder), "-d", str(folder), "-r", str(each.file)]
            there = subprocess.run([*command, "--no-index"], check=False, capture_output=True)
            if there.returncode:
                subprocess.run(command, check=True, capture_output=True)


_PORT = 18765
"""The same each time: an address that changed would make every layer anew."""


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Offer the wheels on this machine; the classic builder can mount nothing."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", _PORT), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{_PORT}/"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Say nothing."""
