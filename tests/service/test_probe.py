"""The check that containers run every few seconds, and how balancers are warned."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from splitformer.serving import probe
from tests.conftest import Services
from tests.support.certificates import Authority, Pair
from tests.support.rpc import Caller, eventually
from tests.support.servers import ServerThread


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority(tmp_path_factory.mktemp("tls")).pair("server")


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def asked(service: str, **variables: str) -> tuple[int, str]:
    """Run the probe as a container does; return its exit status and what it says."""
    prefix = f"SPLITFORMER_{service.upper()}_"
    environment = {prefix + name.upper(): value for name, value in variables.items()}
    done = subprocess.run(
        [sys.executable, "-I", "-S", probe.__file__, service],
        env=environment | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_service_that_serves_is_healthy(services: Services) -> None:
    encoder, decoder = str(services.encoder.server.port), str(services.decoder.server.port)
    assert asked("encoder", port=encoder) == (0, "encoder: SERVING\n")
    assert asked("decoder", port=decoder) == (0, "decoder: SERVING\n")


def test_so_is_one_behind_tls(servers: ServerThread, services: Services, pair: Pair) -> None:
    files = {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key)}
    authority = pair.certificate.parent / "ca.pem"
    for more in ({}, {"tls_client_ca": str(authority)}):
        running = servers.start_decoder(services.model, None, **files, **more)
        port = str(running.server.port)
        assert asked("decoder", port=port, **files, **more) == (0, "decoder: SERVING\n")
        assert asked("decoder", port=port)[0] == 1  # it speaks TLS and nothing else


def test_nobody_nothing_and_something_else_are_not_healthy(
    silent: socket.socket, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = silent.getsockname()[1]
    monkeypatch.setattr(probe, "SECONDS", 0.2)
    with pytest.raises(TimeoutError):
        probe.is_serving("127.0.0.1", port, None)
    silent.close()
    status, text = asked("encoder", port=str(port))
    assert (status, text.startswith("encoder: ")) == (1, True)
    assert not probe.is_serving("127.0.0.1", services.encoder.server.metrics_port, None)


def test_new_work_is_taken_while_balancers_are_warned(
    servers: ServerThread, services: Services
) -> None:
    encoder = servers.start_encoder(services.model, notice_seconds=4.0)
    decoder = servers.start_decoder(services.model, encoder, notice_seconds=4.0)
    caller = Caller(encoder, decoder)
    stopping = [threading.Thread(target=servers.stop, args=(each,)) for each in (encoder, decoder)]
    for thread in stopping:
        thread.start()
    ports = [each.server.port for each in (encoder, decoder)]
    eventually(lambda: not any(probe.is_serving("127.0.0.1", port, None) for port in ports))
    reference = caller.reference()
    caller.close_session(caller.open_reference(reference))
    caller.release(reference)
    for thread in stopping:
        thread.join(30)
    for port in ports:
        with pytest.raises(OSError, match="refused"):
            probe.is_serving("127.0.0.1", port, None)
    caller.close()
    assert Path(probe.__file__).read_text(encoding="utf-8").count("import splitformer") == 0
