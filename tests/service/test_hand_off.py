"""The memory's way from encoder to decoder: by upload and by reference."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc, tensor_pb2
from tests.conftest import Services
from tests.support.rpc import Caller, eventually, refused, upload
from tests.support.servers import ServerThread

PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND = grpc.StatusCode.NOT_FOUND


def test_a_memory_of_another_model_is_refused_by_upload_and_by_reference(
    servers: ServerThread, services: Services, other_model: Path
) -> None:
    encoder = servers.start_encoder(other_model)
    decoder = servers.start_decoder(services.model, encoder)
    stranger = Caller(encoder, decoder)
    before = stranger.footprint()
    with refused(PRECONDITION, "FINGERPRINT_MISMATCH"):
        stranger.open(stranger.memory())
    reference = stranger.reference()
    with refused(PRECONDITION, "FINGERPRINT_MISMATCH"):
        stranger.open_reference(reference)
    stranger.release(reference)
    eventually(lambda: stranger.footprint() == before)
    own = Caller(services.encoder, decoder)
    own.check_works()
    stranger.close()
    own.close()


def test_a_memory_comes_by_reference_and_its_lease_is_given_back(
    caller: Caller, services: Services
) -> None:
    reference = caller.reference()
    session = caller.open_reference(reference)
    eventually(lambda: services.encoder.service.store.leases == 1)
    assert caller.release(reference).remaining_leases == 0
    uploaded = caller.open(caller.memory())
    assert caller.generate(session).ids == caller.generate(uploaded).ids
    caller.close_session(session)
    caller.close_session(uploaded)


def test_a_reference_to_nothing_is_not_found(caller: Caller) -> None:
    reference = caller.reference()
    caller.release(reference)
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        caller.open_reference(reference)
    reference.memory_id = ""
    with refused(NOT_FOUND, "MEMORY_NOT_FOUND"):
        caller.open_reference(reference)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port that somebody listens on and that no decoder may dial."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server


def test_an_encoder_outside_the_allow_list_is_never_dialled(
    caller: Caller, listener: socket.socket
) -> None:
    port = listener.getsockname()[1]
    reference = caller.reference()
    for endpoint in (f"127.0.0.1:{port}", f"localhost:{port}", f"ipv4:127.0.0.1:{port}", "", ":*"):
        reference.endpoint = endpoint
        with refused(grpc.StatusCode.PERMISSION_DENIED, "ENDPOINT_NOT_ALLOWED"):
            caller.open_reference(reference)
    time.sleep(0.2)
    with pytest.raises(BlockingIOError):
        listener.accept()
    caller.release(reference)


def test_any_port_of_a_host_may_be_allowed_and_nothing_but_a_port(
    servers: ServerThread, services: Services
) -> None:
    decoder = servers.start_decoder(services.model, encoders=("127.0.0.1:*",))
    caller = Caller(services.encoder, decoder)
    reference = caller.reference()
    session = caller.open_reference(reference)
    caller.close_session(session)
    for endpoint in ("127.0.0.1:", "127.0.0.1:x", "evil/127.0.0.1:80", "127.0.0.1:1,evil:80"):
        reference.endpoint = endpoint
        with refused(grpc.StatusCode.PERMISSION_DENIED, "ENDPOINT_NOT_ALLOWED"):
            caller.open_reference(reference)
    eventually(lambda: services.encoder.service.store.leases == 1)
    caller.release(reference)
    caller.close()


def test_an_unreachable_encoder_is_unavailable_and_retried_later(
    servers: ServerThread, services: Services
) -> None:
    encoder = servers.start_encoder(services.model, drain_seconds=0)
    decoder = servers.start_decoder(services.model, encoder)
    caller = Caller(encoder, decoder)
    reference = caller.reference()
    port = encoder.server.port
    servers.stop(encoder)
    with refused(grpc.StatusCode.UNAVAILABLE, "ENCODER_UNREACHABLE") as refusal:
        caller.open_reference(reference)
    assert refusal.error.retry_after
    assert decoder.service.budget.used == 0
    again = Caller(servers.start_encoder(services.model, port=port), decoder)

    def opened() -> bool:
        try:
            again.close_session(again.open_reference(again.reference(lease_ms=1000)))
        except grpc.RpcError:
            return False
        return True

    eventually(opened)
    caller.close()
    again.close()


def test_an_encoder_that_never_answers_is_unavailable(
    servers: ServerThread, services: Services, listener: socket.socket
) -> None:
    endpoint = f"127.0.0.1:{listener.getsockname()[1]}"
    decoder = servers.start_decoder(services.model, encoders=(endpoint,), fetch_seconds=0.2)
    caller = Caller(None, decoder)
    reference = tensor_pb2.MemoryReference(memory_id="00", endpoint=endpoint)
    with refused(grpc.StatusCode.UNAVAILABLE, "ENCODER_UNREACHABLE"):
        caller.open_reference(reference)
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.close()


def test_an_upload_that_stalls_is_given_up(servers: ServerThread, services: Services) -> None:
    decoder = servers.start_decoder(services.model, fetch_seconds=0.2)
    caller = Caller(services.encoder, decoder)
    requests = upload(caller.memory())

    def stalling() -> Iterator[dec.OpenSessionRequest]:
        yield from requests[:2]
        eventually(lambda: decoder.service.budget.used > 0)
        eventually(lambda: decoder.service.budget.used == 0)

    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "UPLOAD_STALLED"):
        caller.decoder.OpenSession(stalling())
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.check_works()
    caller.close()


def test_an_upload_that_is_cancelled_leaves_nothing(caller: Caller, services: Services) -> None:
    requests = upload(caller.memory())
    budget, done = services.decoder.service.budget, threading.Event()

    def hanging() -> Iterator[dec.OpenSessionRequest]:
        yield from requests[:2]
        done.wait()

    call = caller.decoder.OpenSession.future(hanging())
    eventually(lambda: budget.used > 0)
    call.cancel()
    eventually(lambda: budget.used == 0)
    done.set()


def test_the_budget_holds_and_frees_again(servers: ServerThread, services: Services) -> None:
    decoder = servers.start_decoder(services.model, services.encoder, memory_bytes=100_000)
    caller = Caller(services.encoder, decoder)
    memory, reference = caller.memory(), caller.reference()
    sessions: list[str] = []
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET") as refusal:
        while True:
            sessions.append(caller.open(memory))
    assert sessions
    assert refusal.error.retry_after == pytest.approx(1.0)
    used = decoder.service.budget.used
    assert used == sum(caller.session(session).size_bytes for session in sessions)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET"):
        caller.open_reference(reference)
    assert decoder.service.budget.used == used
    caller.generate(sessions[0])
    assert caller.close_session(sessions.pop()).freed_bytes == used // (len(sessions) + 1)
    sessions.append(caller.open_reference(reference))
    for session in sessions:
        caller.close_session(session)
    eventually(lambda: services.encoder.service.store.leases == 1)
    caller.release(reference)
    eventually(lambda: set(caller.footprint().values()) == {0})
    caller.close()


def test_a_session_that_never_fits_is_not_told_to_come_back(
    servers: ServerThread, services: Services
) -> None:
    decoder = servers.start_decoder(services.model, memory_bytes=1000)
    caller = Caller(services.encoder, decoder)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVER_BUDGET") as refusal:
        caller.open(caller.memory())
    assert refusal.error.retry_after is None
    assert decoder.service.budget.used == 0
    caller.close()


def test_five_languages_from_one_memory_take_one_encode(caller: Caller, services: Services) -> None:
    encoded = services.encoder.metric("splitformer_encoder_sources_total")
    reference = caller.reference()
    languages = ("ja", "de", "fr", "es", "zh_CN")
    sessions = [caller.open_reference(reference, language) for language in languages]
    outputs = [tuple(caller.generate(session, close_on_end=True).ids) for session in sessions]
    assert len(set(outputs)) == len(languages)
    assert services.encoder.metric("splitformer_encoder_sources_total") == encoded + 1
    eventually(lambda: services.encoder.service.store.leases == 1)
    caller.release(reference)


def test_a_fetched_lease_is_short_lived_without_release(caller: Caller) -> None:
    reference = caller.reference(lease_ms=50)
    list(
        caller.encoder.FetchMemory(
            enc.FetchMemoryRequest(memory_id=reference.memory_id, lease_ms=50)
        )
    )
    eventually(lambda: caller.footprint()["leases"] == 0)
