"""Fixtures: a tiny model, real servers over it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from decoder_service.service import DecoderService
from encoder_service.service import EncoderService
from tests.support.checkpoints import make_checkpoint
from tests.support.servers import Running, ServerThread


def pytest_configure() -> None:
    """Undo that a shell which starts pytest in the background lets it ignore SIGINT, nohup SIGHUP.

    Every process that a test starts would inherit that, and could not be interrupted.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Services:
    """Both services over one tiny model."""

    encoder: Running[EncoderService]
    decoder: Running[DecoderService]
    model: Path


def nothing_is_held(services: Services) -> bool:
    """True if no memory, lease, session or generation is left."""
    memories, sessions = services.encoder.service.store, services.decoder.service.sessions
    load = services.decoder.service.load()
    return len(memories) == len(sessions) == load.used_bytes == load.running == load.queued == 0


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny seeded model's folder."""
    return make_checkpoint(tmp_path_factory.mktemp("model") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same shape."""
    return make_checkpoint(tmp_path_factory.mktemp("model") / "other", seed=1)


@pytest.fixture(scope="session")
def server_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop that all servers of the tests run on."""
    thread = ServerThread()
    yield thread.loop
    thread.close()


@pytest.fixture(scope="session")
def services(tiny_model: Path, server_loop: asyncio.AbstractEventLoop) -> Iterator[Services]:
    """Both services with default settings, shared by tests that leave them as they were."""
    thread = ServerThread(server_loop)
    encoder = thread.start_encoder(tiny_model)
    decoder = thread.start_decoder(tiny_model, encoder)
    yield Services(encoder, decoder, tiny_model)
    thread.close()


@pytest.fixture
def servers(server_loop: asyncio.AbstractEventLoop) -> Iterator[ServerThread]:
    """Starts servers with settings of the test's own; all are stopped at its end."""
    thread = ServerThread(server_loop)
    yield thread
    thread.close()
