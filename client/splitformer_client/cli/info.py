"""`splitformer info`: what both services run."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from splitformer_client import aio
from splitformer_client.cli.options import (
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    CaOption,
    CertificateOption,
    DecoderOption,
    EncoderOption,
    JsonOption,
    KeyOption,
    TlsOption,
    tls_choice,
)
from splitformer_client.info import ModelInfo
from splitformer_client.tasks import together


def info(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    encoder: EncoderOption = DEFAULT_ENCODER,
    decoder: DecoderOption = DEFAULT_DECODER,
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
    model: Annotated[str, typer.Option("--model", help="Name of the model.")] = "",
    as_json: JsonOption = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds.")] = 10.0,
) -> None:
    """Show the model that each service runs."""
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key) or False
    client = aio.connect(encoder, decoder, model=model, tls=secured, timeout=timeout)
    infos = dict(zip(("encoder", "decoder"), asyncio.run(_ask(client)), strict=True))
    if as_json:
        plain = {service: dataclasses.asdict(given) for service, given in infos.items()}
        typer.echo(json.dumps(plain, ensure_ascii=False))
    else:
        Console().print(_table(infos))


async def _ask(client: aio.AsyncClient) -> list[ModelInfo]:
    async with client:
        return await together([client.encoder_info(), client.decoder_info()])


def _table(infos: dict[str, ModelInfo]) -> Table:
    """One row per fact, one column per service."""
    table = Table("", *infos)
    for field in dataclasses.fields(ModelInfo):
        values = [getattr(given, field.name) for given in infos.values()]
        table.add_row(field.name.replace("_", " "), *map(_cell, values))
    return table


def _cell(value: object) -> Text:
    if isinstance(value, tuple):
        return Text(", ".join(value))
    if isinstance(value, dict):
        return Text(", ".join(f"{name} {each}" for name, each in value.items()))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    return Text(f"{value:,}" if isinstance(value, int) else str(value))
