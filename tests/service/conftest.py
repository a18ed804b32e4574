"""Callers on shared services, which each test must leave as it found them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from splitformer.v1 import decoder_service_pb2 as dec
from splitformer_client import Client, connect
from tests.conftest import Services, nothing_is_held
from tests.support.hearing import become_true
from tests.support.reference import Reference
from tests.support.rpc import Caller
from tests.support.servers import ServerThread
from tests.support.whisper import make_whisper

Opens = Callable[..., str]


@pytest.fixture(scope="session")
def shared_caller(services: Services) -> Iterator[Caller]:
    """Stubs of the shared services."""
    caller = Caller(services.encoder, services.decoder)
    yield caller
    caller.close()


@pytest.fixture
def caller(shared_caller: Caller) -> Iterator[Caller]:
    """Stubs of the shared services; afterwards nothing may be left behind and both must work."""
    with shared_caller.nothing_left_behind():
        yield shared_caller


@pytest.fixture
def opened(caller: Caller) -> Iterator[Opens]:
    """Opens sessions that are closed afterwards, if they are still there."""
    sessions: list[str] = []

    def make(memory: Any = None, **fields: Any) -> str:
        sessions.append(caller.open(memory or caller.memory(), **fields))
        return sessions[-1]

    yield make
    for session in sessions:
        if caller.session(session).state != dec.SESSION_STATE_CLOSED:
            caller.close_session(session)


@pytest.fixture(scope="session")
def reference(services: Services) -> Reference:
    """The shared services' model in this process."""
    return Reference(services.model)


@pytest.fixture(scope="session")
def whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Whisper."""
    return make_whisper(tmp_path_factory.mktemp("whisper") / "tiny-whisper")


@pytest.fixture(scope="session")
def hearing(whisper_folder: Path, server_loop: asyncio.AbstractEventLoop) -> Iterator[Services]:
    """Both services over one tiny Whisper."""
    thread = ServerThread(server_loop)
    encoder = thread.start_encoder(whisper_folder)
    yield Services(encoder, thread.start_decoder(whisper_folder, encoder), whisper_folder)
    thread.close()


@pytest.fixture
def speech(hearing: Services) -> Iterator[Client]:
    """A client of them; afterwards nothing may be left behind."""
    with connect(hearing.encoder.address, hearing.decoder.address, timeout=60) as client:
        yield client
    become_true(lambda: nothing_is_held(hearing))
