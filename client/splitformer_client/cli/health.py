"""`splitformer health`: asks the services' health endpoints, as a container's health check may."""

from __future__ import annotations

import enum
from typing import Annotated, TypeAlias

import grpc
import typer
from grpc_health.v1 import health_pb2

from splitformer_client.cli.options import (
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    CaOption,
    CertificateOption,
    DecoderOption,
    EncoderOption,
    KeyOption,
    TlsOption,
    tls_choice,
)
from splitformer_client.settings import Tls

Check: TypeAlias = (
    "grpc.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]"
)

SERVING = "SERVING"


class Service(enum.StrEnum):
    """A service that can be asked."""

    ENCODER = "encoder"
    DECODER = "decoder"


_FULL_NAMES = {
    Service.ENCODER: "splitformer.v1.EncoderService",
    Service.DECODER: "splitformer.v1.DecoderService",
}


def health(
    encoder: EncoderOption = DEFAULT_ENCODER,
    decoder: DecoderOption = DEFAULT_DECODER,
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
    service: Annotated[
        Service | None, typer.Option("--service", help="Ask only this service; default: both.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds per service.")] = 5.0,
) -> None:
    """Say whether the services are serving; exit status 1 if one is not."""
    addresses = {Service.ENCODER: encoder, Service.DECODER: decoder}
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key)
    healthy = True
    for name in [service] if service else list(Service):
        for health_name, status in statuses(
            addresses[name], _FULL_NAMES[name], timeout, secured
        ).items():
            typer.echo(f"{name}\t{addresses[name]}\t{health_name or '(server)'}\t{status}")
            healthy = healthy and status == SERVING
    raise typer.Exit(0 if healthy else 1)


def statuses(
    address: str, full_name: str, timeout: float, tls: Tls | None = None
) -> dict[str, str]:
    """Ask one server for its status as a whole and for that of its service.

    Args:
        address: gRPC target.
        full_name: Name of the service in the protocol.
        timeout: Seconds per question.
        tls: How the connection is secured; None: it is not.

    Returns:
        By name, SERVING, NOT_SERVING or the status code of a failed call; the empty name is the
        server as a whole.

    Raises:
        ConfigurationError: A TLS file cannot be used.
    """
    with _channel(address, tls) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=_serialized,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return {name: _status(check, name, timeout) for name in ("", full_name)}


def _channel(address: str, tls: Tls | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, tls.files().read().channel_credentials())


def _serialized(request: health_pb2.HealthCheckRequest) -> bytes:
    return request.SerializeToString()


def _status(check: Check, name: str, timeout: float) -> str:
    try:
        reply = check(health_pb2.HealthCheckRequest(service=name), timeout=timeout)
    except grpc.RpcError as error:
        return str(error.code().name)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)
