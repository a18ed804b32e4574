"""`splitformer embed`: text or lines in, one vector each out."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
from pathlib import Path
from typing import Annotated

import typer

from splitformer.wire import FloatArray
from splitformer_client import aio
from splitformer_client.cli.lines import Input, in_order
from splitformer_client.cli.options import (
    DEFAULT_ENCODER,
    CaOption,
    CertificateOption,
    EncoderOption,
    KeyOption,
    TlsOption,
    tls_choice,
)

LINES_IN_FLIGHT = 32


class Pooling(enum.StrEnum):
    """How a source's rows become one vector."""

    AUTO = "auto"
    MEAN = "mean"
    CLS = "cls"


def embed(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="What to embed; if left out, lines of files or stdin."),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="Embed the lines of this file."
        ),
    ] = None,
    pooling: Annotated[
        Pooling, typer.Option(help="Mean of all rows, or the CLS row if the model has one.")
    ] = Pooling.AUTO,
    source_language: Annotated[
        str, typer.Option("--from", help="Language of the source; default: the model's own.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds per source.")] = 60.0,
    model: Annotated[str, typer.Option(help="Name of the model.")] = "",
    encoder: EncoderOption = DEFAULT_ENCODER,
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
) -> None:
    """Write one vector per source, as JSON objects with `source` and `vector`.

    Sources are the texts, or the non-empty lines of files or of standard input.
    """
    if texts and file:
        raise typer.BadParameter("give either TEXT or --file", param_hint="--file")
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key) or False
    client = aio.connect(encoder, model=model, tls=secured, timeout=timeout)
    source = Input(texts or [], file or [])
    asyncio.run(_run(client, source, pooling, source_language))


async def _run(
    client: aio.AsyncClient, source: Input, pooling: Pooling, source_language: str
) -> None:
    async def work(text: str) -> FloatArray | None:
        if source.is_lines and not text.strip():
            return None
        return await client.embed(text, pooling=pooling.value, source_language=source_language)

    results = in_order(source.sources(), work, LINES_IN_FLIGHT)
    async with client, contextlib.aclosing(results):
        async for text, vector in results:
            if vector is not None:
                line = {"source": text, "vector": vector.tolist()}
                typer.echo(json.dumps(line, ensure_ascii=False))
