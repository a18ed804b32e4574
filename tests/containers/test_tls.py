"""TLS between all: who is let through, who is refused, and what is said of missing files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from splitformer.errors import UnavailableError
from splitformer_client import Tls, connect
from tests.support.composed import Composed
from tools.compose import FOLDER

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300, func_only=True)]
FILES = ("compose.yaml", "compose.tls.yaml")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates, as an operator who tries it out makes them."""
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    subprocess.run(["sh", str(FOLDER / "certificates.sh"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def composed(
    engine: docker.DockerClient, stand_ins: dict[str, str], files: Path
) -> Iterator[Composed]:
    """Both services; that they are healthy was found out over TLS."""
    running = Composed(engine, stand_ins, FILES, extra={"TLS": str(files)})
    try:
        running.up("encoder", "decoder")
        yield running
    finally:
        running.down()


def test_translate_works_with_the_authority_and_a_certificate(
    composed: Composed, files: Path
) -> None:
    """The decoder pulls the memory from an encoder that asks for its certificate."""
    command = [sys.executable, "-m", "splitformer_client", "translate", "--to", "de", "Open it."]
    environment = {
        **os.environ,
        "PYTHONPATH": ":".join(sys.path),
        "SPLITFORMER_ENCODER": f"localhost:{composed.ports['ENCODER']}",
        "SPLITFORMER_DECODER": f"localhost:{composed.ports['DECODER']}",
        "SPLITFORMER_TLS_CA": str(files / "ca.pem"),
        "SPLITFORMER_TLS_CERTIFICATE": str(files / "client.pem"),
        "SPLITFORMER_TLS_KEY": str(files / "client.key"),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("has", ["nothing", "the authority alone"])
def test_plain_text_and_callers_without_a_certificate_are_refused(
    composed: Composed, files: Path, has: str
) -> None:
    tls = None if has == "nothing" else Tls(ca=str(files / "ca.pem"))
    with connect(composed.encoder, composed.decoder, tls=tls, timeout=5) as client:
        with pytest.raises(UnavailableError):
            client.encoder_info()
        with pytest.raises(UnavailableError):
            client.decoder_info()


@pytest.fixture
def other(engine: docker.DockerClient, stand_ins: dict[str, str]) -> Iterator[Composed]:
    """Another set-up, to go wrong."""
    extra = {"COMPOSE_PROJECT_NAME": "other", "NETWORK": "other"}
    running = Composed(engine, stand_ins, FILES, extra)
    try:
        yield running
    finally:
        running.down()


@pytest.mark.parametrize("wrong", ["missing", "unreadable"])
def test_files_that_cannot_be_used_are_told_by_up(
    other: Composed, files: Path, tmp_path: Path, wrong: str
) -> None:
    folder = tmp_path / "tls"
    if wrong == "missing":
        folder.mkdir()
        line = "tls_certificate: '/tls/encoder.pem' cannot be read: No such file or directory"
    else:
        shutil.copytree(files, folder)
        (folder / "encoder.key").chmod(0o600)
        line = "tls_key: '/tls/encoder.key' cannot be read: Permission denied"
    other.extra["TLS"] = str(folder)
    done = other.verb("up", "--no-build", "encoder")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f" ended: encoder-service: {line}" in done.stderr
