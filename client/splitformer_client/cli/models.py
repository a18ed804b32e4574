"""`splitformer models`: which models the services have loaded, and loading and unloading them."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from typing import Annotated, Any

import grpc
import typer

from splitformer.errors import ConfigurationError
from splitformer.v1 import model_admin_service_pb2 as pb, model_pb2
from splitformer.v1.model_admin_service_pb2_grpc import ModelAdminServiceStub
from splitformer_client.cli.options import (
    CaOption,
    CertificateOption,
    KeyOption,
    TlsOption,
    tls_choice,
)
from splitformer_client.link import Link
from splitformer_client.scope import Scope

_ADMIN = "Address where the {} service administers its models (its setting admin)."
_MIB = 2**20


class Action(enum.StrEnum):
    """What can be done."""

    LIST = "list"
    LOAD = "load"
    UNLOAD = "unload"


def models(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    action: Annotated[Action, typer.Argument(help="What to do.")],
    name: Annotated[str, typer.Argument(help="Name of the model; not for list.")] = "",
    encoder: Annotated[
        str,
        typer.Option(
            "--encoder-admin",
            envvar="SPLITFORMER_ENCODER_ADMIN",
            help=_ADMIN.format("encoder"),
        ),
    ] = "",
    decoder: Annotated[
        str,
        typer.Option(
            "--decoder-admin",
            envvar="SPLITFORMER_DECODER_ADMIN",
            help=_ADMIN.format("decoder"),
        ),
    ] = "",
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
    timeout: Annotated[
        float,
        typer.Option("--timeout", help="Seconds per service; unloading waits for open sessions."),
    ] = 300.0,
) -> None:
    """List the models of both services, or load or unload one by name."""
    addresses = {"encoder": encoder, "decoder": decoder}
    if not any(addresses.values()):
        raise ConfigurationError("models: needs --encoder-admin or --decoder-admin, or both")
    if (action is Action.LIST) != (not name):
        raise ConfigurationError(f"name: must be given for load and unload only, got {name!r}")
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key)
    credentials = secured.files().read().channel_credentials() if secured else None
    asyncio.run(_act(action, name, addresses, credentials, timeout))


async def _act(
    action: Action,
    name: str,
    addresses: Mapping[str, str],
    credentials: grpc.ChannelCredentials | None,
    seconds: float,
) -> None:
    for service, address in addresses.items():
        if not address:
            continue
        link = Link(service, address, (), credentials)
        try:
            stub: Any = ModelAdminServiceStub(link.channel)
            for line in await _ACTIONS[action](link, stub, name, Scope(seconds)):
                typer.echo(f"{service}\t{line}")
        finally:
            await link.close()


async def _list(link: Link, stub: Any, name: str, scope: Scope) -> list[str]:
    answer = await link.call(stub.ListModels, pb.ListModelsRequest(), scope)
    return [*map(_loaded, answer.loaded), *(f"{each}\tavailable" for each in answer.available)]


async def _load(link: Link, stub: Any, name: str, scope: Scope) -> list[str]:
    answer = await link.call(stub.LoadModel, pb.LoadModelRequest(name=name), scope)
    return [_loaded(answer.model)]


async def _unload(link: Link, stub: Any, name: str, scope: Scope) -> list[str]:
    answer = await link.call(stub.UnloadModel, pb.UnloadModelRequest(name=name), scope)
    return [f"{name}\tunloaded\t{answer.freed_bytes / _MIB:.1f} MiB"]


def _loaded(model: model_pb2.ModelInfo) -> str:
    size = f"{model.weight_bytes / _MIB:.1f} MiB"
    return f"{model.name}\tloaded\t{size}\t{model.precision}\t{model.fingerprint.model[:16]}"


_ACTIONS = {Action.LIST: _list, Action.LOAD: _load, Action.UNLOAD: _unload}
