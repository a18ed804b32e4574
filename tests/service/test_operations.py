"""Running the services: health, reflection, what is not there yet, draining, stopping."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from decoder_service import loaded
from decoder_service.service import DecoderService
from decoder_service.servicer import register
from decoder_service.settings import DecoderSettings
from splitformer.serving.server import Server
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.checkpoints import MAX_POSITIONS
from tests.support.gate import gate_of
from tests.support.rpc import Caller, collected, eventually, refused
from tests.support.servers import Running, ServerThread

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ENCODER, DECODER = "splitformer.v1.EncoderService", "splitformer.v1.DecoderService"


def health(address: str, service: str) -> int:
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


# --- health and reflection


def test_both_services_are_healthy_by_name_and_as_a_whole(services: Services) -> None:
    for running, name in ((services.encoder, ENCODER), (services.decoder, DECODER)):
        assert health(running.address, "") == SERVING
        assert health(running.address, name) == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health(running.address, "nope")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_can_be_watched(servers: ServerThread, services: Services) -> None:
    running = servers.start_encoder(services.model)
    with grpc.insecure_channel(running.address) as channel:
        request = health_pb2.HealthCheckRequest(service=ENCODER)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(request, timeout=20)
        assert next(watch).status == SERVING
        servers.stop(running)
        assert next(watch).status == NOT_SERVING


def test_nothing_is_served_until_warm(
    servers: ServerThread, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    warming, warm = threading.Event(), threading.Event()
    warm_up = loaded._warm_up

    def slow_warm_up(*arguments: Any) -> None:
        warming.set()
        assert warm.wait(20)
        warm_up(*arguments)

    monkeypatch.setattr(loaded, "_warm_up", slow_warm_up)
    settings = DecoderSettings(model=str(services.model), port=0, metrics_port=0)
    telemetry = Telemetry()
    service = DecoderService(settings, telemetry)
    server = Server(settings, service, register, telemetry)
    starting = asyncio.run_coroutine_threadsafe(server.start(), servers.loop)
    running = Running(service, server, telemetry)
    assert warming.wait(20)
    assert health(running.address, "") == health(running.address, DECODER) == NOT_SERVING
    caller = Caller(services.encoder, None)
    caller.decoder = Caller(None, running).decoder
    with refused(UNAVAILABLE, "NOT_READY") as refusal:
        caller.open(caller.memory())
    assert refusal.error.retry_after
    warm.set()
    starting.result(20)
    assert health(running.address, "") == health(running.address, DECODER) == SERVING
    caller.check_works()
    servers.run(server.stop())
    caller.close()


@pytest.mark.parametrize("name", [ENCODER, DECODER])
def test_reflection_lists_the_services(services: Services, name: str) -> None:
    running = services.encoder if name == ENCODER else services.decoder
    with grpc.insecure_channel(running.address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=name),
        ]
        listed, found = stub.ServerReflectionInfo(iter(requests), timeout=10)
    names = {service.name for service in listed.list_services_response.service}
    assert {name, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} <= names
    file = descriptor_pb2.FileDescriptorProto.FromString(
        found.file_descriptor_response.file_descriptor_proto[0]
    )
    assert name.rpartition(".")[2] in [service.name for service in file.service]


# --- every RPC of the protocol


def methods() -> Iterator[tuple[str, Any]]:
    for name in (ENCODER, DECODER):
        descriptor = descriptor_pool.Default().FindServiceByName(name)
        for method in descriptor.methods:
            yield name, method


def call(channel: grpc.Channel, service: str, method: Any, raw: bytes = b"") -> Any:
    """Call any method with an empty request, or with `raw`, and read what comes."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_"
    kind += "stream" if method.server_streaming else "unary"
    multi = getattr(channel, kind)(
        f"/{service}/{method.name}",
        response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
    )
    sent = iter([raw]) if method.client_streaming else raw
    answer = multi(sent, timeout=10)
    return list(answer) if method.server_streaming else answer


@pytest.mark.usefixtures("caller")
@pytest.mark.parametrize(("service", "method"), [(s, m) for s, m in methods()], ids=str)
def test_every_rpc_of_the_protocol_is_there(services: Services, service: str, method: Any) -> None:
    running = services.encoder if service == ENCODER else services.decoder
    with grpc.insecure_channel(running.address) as channel:
        try:
            call(channel, service, method)
        except grpc.RpcError as error:
            assert error.code() is not grpc.StatusCode.UNIMPLEMENTED  # noqa: PT017


@pytest.mark.usefixtures("caller")
@pytest.mark.parametrize(("service", "method"), [(s, m) for s, m in methods()], ids=str)
def test_malformed_messages_are_invalid_arguments(
    services: Services, service: str, method: Any
) -> None:
    running = services.encoder if service == ENCODER else services.decoder
    with (
        grpc.insecure_channel(running.address) as channel,
        refused(grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
    ):
        call(channel, service, method, raw=b"\xff\xff")


@pytest.mark.parametrize("path", ["/nope/Nope", f"/{ENCODER}/Nope", "/a/b/c", "/x"])
def test_what_nobody_offers_is_unimplemented(services: Services, path: str) -> None:
    with grpc.insecure_channel(services.encoder.address) as channel:
        multi: Any = channel.unary_unary(path)
        with pytest.raises(grpc.RpcError) as caught:
            multi(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- draining


def draining(servers: ServerThread, running: Running[Any]) -> Any:
    """Start to stop a server; return a future of its end."""
    stopping = asyncio.run_coroutine_threadsafe(running.server.stop(), servers.loop)
    servers._servers.remove(running.server)
    eventually(lambda: running.service.load().draining)
    return stopping


def test_a_draining_decoder_finishes_what_runs_and_takes_no_more(
    servers: ServerThread, services: Services
) -> None:
    running = servers.start_decoder(services.model, drain_seconds=20.0)
    caller = Caller(services.encoder, running)
    memory, session = caller.memory(), caller.open(caller.memory())
    with gate_of(running.service) as gate:
        gate.shut()
        generation = caller.start(session, close_on_end=True)
        eventually(lambda: running.service.engine.running == 1)
        stopping = draining(servers, running)
        assert health(running.address, "") == health(running.address, DECODER) == NOT_SERVING
        with refused(UNAVAILABLE, "DRAINING") as refusal:
            caller.open(memory)
        assert refusal.error.retry_after
        assert caller.decoder.GetLoad(dec.DecoderServiceGetLoadRequest()).load.draining
        gate.open()
        assert len(collected(generation).tokens) == MAX_POSITIONS
    stopping.result(20)
    assert running.service.budget.used == 0
    caller.close()


def test_a_draining_encoder_serves_its_memories_and_takes_no_more(
    servers: ServerThread, services: Services
) -> None:
    running = servers.start_encoder(services.model, drain_seconds=20.0)
    caller = Caller(running, None)
    reference = caller.reference()
    stopping = draining(servers, running)
    assert health(running.address, ENCODER) == NOT_SERVING
    with refused(UNAVAILABLE, "DRAINING"):
        caller.memory()
    fetched = list(
        caller.encoder.FetchMemory(
            enc.FetchMemoryRequest(memory_id=reference.memory_id, lease_ms=1)
        )
    )
    assert fetched[-1].trailer.total_bytes > 0
    caller.release(reference)
    stopping.result(20)
    caller.close()


def test_what_outlasts_the_drain_is_failed_with_a_reply(
    servers: ServerThread, services: Services
) -> None:
    running = servers.start_decoder(services.model, drain_seconds=0.1)
    caller = Caller(services.encoder, running)
    session = caller.open(caller.memory())
    with gate_of(running.service) as gate:
        gate.shut()
        generation = caller.start(session)
        eventually(lambda: running.service.engine.running == 1)
        stopping = draining(servers, running)
        eventually(lambda: running.service.engine._closed)
        gate.open()
        with refused(UNAVAILABLE, "DRAINING"):
            list(generation)
    stopping.result(20)
    caller.close()


def test_a_stopped_server_leaves_no_task_thread_or_warning(services: Services) -> None:
    before = set(threading.enumerate())

    async def life() -> set[str]:
        telemetry = Telemetry()
        settings = DecoderSettings(model=str(services.model), port=0, metrics_port=0)
        service = DecoderService(settings, telemetry)
        server = Server(settings, service, register, telemetry)
        await server.start()
        caller = Caller(services.encoder, Running(service, server, telemetry))
        await asyncio.to_thread(caller.check_works)
        session = await asyncio.to_thread(lambda: caller.open(caller.memory()))
        with gate_of(service) as gate:
            gate.shut()
            call = caller.start(session)
            await asyncio.to_thread(eventually, lambda: service.engine.running == 1)
            call.cancel()
            gate.open()
            await asyncio.to_thread(eventually, lambda: service.engine.running == 0)
        await asyncio.to_thread(caller.close_session, session)
        await asyncio.to_thread(caller.close)
        await server.stop()
        ours = asyncio.current_task()
        return {task.get_coro().__qualname__ for task in asyncio.all_tasks() if task is not ours}  # type: ignore[union-attr]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left = asyncio.run(life(), debug=False)
    assert left == set()
    eventually(
        lambda: (
            not [
                thread
                for thread in set(threading.enumerate()) - before
                if not thread.name.startswith(("asyncio", "grpc", "Dummy", "Thread-"))
            ]
        )
    )
