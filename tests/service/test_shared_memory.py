"""Memories that a decoder maps where its encoder wrote them, and what happens where it cannot."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import decoder_service.sharing
from decoder_service.service import DecoderService
from splitformer.serving import sharing
from tests.conftest import Services
from tests.support.checkpoints import SENTENCES
from tests.support.rpc import Caller, eventually, refused
from tests.support.servers import Running, ServerThread

pytestmark = pytest.mark.skipif(not sharing.host_identity(), reason="memories cannot be shared")

NOT_FOUND = grpc.StatusCode.NOT_FOUND
Answer = Callable[[socket.socket, str], object]


class Pair(Caller):
    """An encoder and a decoder of a test's own."""

    def __init__(self, servers: ServerThread, model: Path, **settings: Any) -> None:
        self.encoding = servers.start_encoder(model)
        self.decoding = servers.start_decoder(model, self.encoding, **settings)
        super().__init__(self.encoding, self.decoding)

    def tokens(self, text: str = SENTENCES[0]) -> list[int]:
        """Decode a memory by reference."""
        reference = self.reference(text)
        session = self.open_reference(reference)
        self.release(reference)
        return self.generate(session, close_on_end=True, max_new_tokens=8).ids

    def came(self) -> dict[str, float]:
        """Memories that have come by reference, by path."""
        return {path: came(self.decoding, path) for path in ("chunks", "shared")}

    def fell_back(self, why: str) -> float:
        return self.decoding.metric("splitformer_decoder_shared_memory_fallbacks_total", why=why)


def came(decoding: Running[DecoderService], path: str) -> float:
    return decoding.metric("splitformer_decoder_memory_transfers_total", path=path)


@pytest.fixture
def pair(servers: ServerThread, tiny_model: Path) -> Iterator[Pair]:
    made = Pair(servers, tiny_model)
    yield made
    eventually(lambda: set(made.footprint().values()) == {0})
    made.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def rogue(pair: Pair, answer: Answer) -> Iterator[None]:
    """Put a socket of a test's own in the encoder's place."""
    name = f"splitformer-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(sharing.address(name))
        listener.listen()
        thread = threading.Thread(target=_serve, args=(listener, answer), daemon=True)
        thread.start()
        pair.decoding.service.common.puller._shared._names[pair.encoding.address] = name
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _serve(listener: socket.socket, answer: Answer) -> None:
    try:
        peer, _ = listener.accept()
    except OSError:
        return
    with peer:
        while request := peer.recv(sharing.MAX_REQUEST):
            answer(peer, request.decode())


def test_all_memories_after_the_first_are_mapped_and_give_the_same_tokens(pair: Pair) -> None:
    first, *others = [pair.tokens() for _ in range(4)]
    assert others == [first] * 3
    session = pair.open(pair.memory(SENTENCES[0]))
    assert pair.generate(session, close_on_end=True, max_new_tokens=8).ids == first
    assert pair.came() == {"chunks": 1, "shared": 3}
    assert came(pair.decoding, "upload") == 1
    size = len(pair.memory(SENTENCES[0])[1])
    assert pair.encoding.metric("splitformer_encoder_memory_shared_bytes_total") == 3 * size


def test_no_file_stays_open(pair: Pair) -> None:
    pair.tokens()
    pair.tokens()
    before = open_files()
    for text in SENTENCES:
        pair.tokens(text)
    eventually(lambda: open_files() == before)


def test_a_fan_of_sessions_counts_as_fetches(pair: Pair) -> None:
    pair.tokens()
    reference = pair.reference()
    for language in ("de", "ja", "fr"):
        pair.close_session(pair.open_reference(reference, language))
    name = "splitformer_encoder_memory_fetches_sum"
    before = pair.encoding.metric(name)
    assert pair.release(reference).remaining_leases == 0, "what is mapped needs no lease"
    assert pair.encoding.metric(name) == before + 3


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_either_side_can_be_told_not_to_share(
    servers: ServerThread, tiny_model: Path, side: str
) -> None:
    encoder = servers.start_encoder(tiny_model, shared_memory=side != "encoder")
    decoder = servers.start_decoder(tiny_model, encoder, shared_memory=side != "decoder")
    caller = Caller(encoder, decoder)
    for _ in range(2):
        reference = caller.reference()
        caller.close_session(caller.open_reference(reference))
        caller.release(reference)
    assert (came(decoder, "chunks"), came(decoder, "shared")) == (2, 0)
    caller.close()


def test_an_encoder_on_another_host_is_not_looked_for(pair: Pair) -> None:
    pair.decoding.service.common.puller._shared._host = "elsewhere"
    assert pair.tokens() == pair.tokens()
    assert pair.came() == {"chunks": 2, "shared": 0}
    assert pair.fell_back("gone") == 0


def test_a_released_memory_is_not_found_by_the_shared_path_either(pair: Pair) -> None:
    pair.tokens()
    reference = pair.reference()
    pair.release(reference)
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        pair.open_reference(reference)
    assert pair.fell_back("unknown_memory") == 1
    for memory_id in ("", "\0", "x" * 1000):
        reference.memory_id = memory_id
        with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
            pair.open_reference(reference)
    pair.tokens()
    assert pair.came() == {"chunks": 1, "shared": 1}


def test_a_memory_that_does_not_fit_is_refused_before_it_is_mapped(
    servers: ServerThread, services: Services, other_model: Path
) -> None:
    encoder = servers.start_encoder(other_model)
    decoder = servers.start_decoder(services.model, encoder)
    stranger = Caller(encoder, decoder)
    files = []
    for _ in range(4):
        reference = stranger.reference()
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "FINGERPRINT_MISMATCH"):
            stranger.open_reference(reference)
        stranger.release(reference)
        eventually(lambda: set(stranger.footprint().values()) == {0})
        files.append(open_files())
    assert files[1:] == files[1:2] * 3, "nothing but the connection, from the second on"
    assert encoder.metric("splitformer_encoder_memory_shared_bytes_total") > 0
    stranger.close()


def test_a_socket_that_has_vanished_is_replaced_by_fetching(pair: Pair) -> None:
    expected = pair.tokens()
    assert pair.tokens() == expected
    server = pair.encoding.service.sharing
    assert server is not None
    _on_the_loop(server._loop, server.close)
    assert pair.tokens() == expected
    assert pair.fell_back("gone") == 1
    assert pair.came() == {"chunks": 2, "shared": 1}


def test_an_encoder_that_starts_anew_is_learned_anew(
    servers: ServerThread, tiny_model: Path
) -> None:
    pair = Pair(servers, tiny_model)
    expected = pair.tokens()
    assert pair.tokens() == expected
    port = pair.encoding.server.port
    servers.stop(pair.encoding)
    again = Caller(servers.start_encoder(tiny_model, port=port), pair.decoding)

    def opened() -> bool:
        reference = again.reference(SENTENCES[0])
        try:
            session = again.open_reference(reference)
        except grpc.RpcError:
            return False
        finally:
            again.release(reference)
        return again.generate(session, close_on_end=True, max_new_tokens=8).ids == expected

    eventually(opened)
    mapped = pair.came()["shared"]
    assert opened()
    assert pair.came()["shared"] == mapped + 1
    pair.close()
    again.close()


def test_another_users_encoder_is_not_asked(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pair.tokens()
    monkeypatch.setattr(sharing, "is_own_user", lambda peer: False)
    assert pair.tokens() == expected
    assert pair.came() == {"chunks": 2, "shared": 0}
    assert pair.fell_back("another_user") == 1


def test_another_users_decoder_gets_no_answer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[socket.socket] = []

    def only_the_first(peer: socket.socket) -> bool:
        asked.append(peer)
        return len(asked) == 1  # the decoder looks at the encoder before that one looks at it

    expected = pair.tokens()
    monkeypatch.setattr(sharing, "is_own_user", only_the_first)
    assert pair.tokens() == expected
    assert pair.came() == {"chunks": 2, "shared": 0}
    assert pair.fell_back("gone") == 1


def _lend(data: bytes) -> int:
    """Open a file in memory that can still be changed."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    return fd


@pytest.mark.parametrize("fault", ["can be changed", "too short", "no file in memory"])
def test_a_segment_that_cannot_be_trusted_is_not_mapped(pair: Pair, fault: str) -> None:
    expected = pair.tokens()
    header, data = pair.memory(SENTENCES[0])

    def answer(peer: socket.socket, memory_id: str) -> None:
        if fault == "no file in memory":
            fd = os.open("/dev/null", os.O_RDONLY)
        else:
            fd = _lend(data if fault == "can be changed" else data[:-1])
        if fault == "too short":
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, sharing.SEALS)
        socket.send_fds(peer, [sharing.FOUND + header.SerializeToString()], [fd])
        os.close(fd)

    with rogue(pair, answer):
        assert pair.tokens() == expected
    assert pair.came() == {"chunks": 2, "shared": 0}
    assert pair.fell_back("unusable") == 1
    assert pair.tokens() == expected, "the true socket has been learned again"
    assert pair.came() == {"chunks": 2, "shared": 1}


def test_an_answer_that_is_no_header_is_a_fallback(pair: Pair) -> None:
    expected = pair.tokens()

    def answer(peer: socket.socket, memory_id: str) -> None:
        fd = _lend(b"x")
        socket.send_fds(peer, [sharing.FOUND + b"\xff\xff\xff"], [fd])
        os.close(fd)

    with rogue(pair, answer):
        assert pair.tokens() == expected
    assert pair.fell_back("unusable") == 1


def test_an_encoder_that_does_not_answer_is_not_waited_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pair.tokens()
    monkeypatch.setattr(decoder_service.sharing, "_ANSWER_SECONDS", 0.05)
    with rogue(pair, lambda peer, memory_id: None):
        assert pair.tokens() == expected
    assert pair.fell_back("gone") == 1


def test_strange_requests_are_answered_or_dropped(pair: Pair) -> None:
    server = pair.encoding.service.sharing
    assert server is not None
    for request in (b"\xff" * 64, b"\0", b"a" * 1000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.settimeout(20)
            peer.connect(sharing.address(server.offer.socket))
            peer.send(request)
            assert peer.recv(10) == sharing.NOT_FOUND
    eventually(lambda: not server._peers)


def _on_the_loop(loop: Any, call: Callable[[], object]) -> None:
    async def run() -> None:
        call()

    asyncio.run_coroutine_threadsafe(run(), loop).result(20)
