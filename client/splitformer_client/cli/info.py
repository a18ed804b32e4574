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
    DecoderOption,
    EncoderOption,
    JsonOption,
)
from splitformer_client.tasks import together
from splitformer_client.values import ModelInfo


def info(
    encoder: EncoderOption = DEFAULT_ENCODER,
    decoder: DecoderOption = DEFAULT_DECODER,
    model: Annotated[str, typer.Option("--model", help="Name of the model.")] = "",
    as_json: JsonOption = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds.")] = 10.0,
) -> None:
    """Show the model that each service runs."""
    client = aio.connect(encoder, decoder, model=model, timeout=timeout)
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
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    return Text(f"{value:,}" if isinstance(value, int) else str(value))
