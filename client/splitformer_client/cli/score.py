"""`splitformer score`: how probable given translations are."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from splitformer_client import aio
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
from splitformer_client.values import Score


def score(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    source: Annotated[str, typer.Argument(help="The text that was translated.")],
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="Its translations.")],
    to: Annotated[str, typer.Option("--to", "-t", help="Their language, for example de.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object per translation.")
    ] = False,
    source_language: Annotated[
        str, typer.Option("--from", help="Language of the source; default: the model's own.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds in all.")] = 60.0,
    model: Annotated[str, typer.Option(help="Name of the model.")] = "",
    encoder: EncoderOption = DEFAULT_ENCODER,
    decoder: DecoderOption = DEFAULT_DECODER,
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
) -> None:
    """Write how probable translations are: log-probability (with the end token), tab, text."""
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key) or False
    client = aio.connect(encoder, decoder, model=model, tls=secured, timeout=timeout)
    scores = asyncio.run(_scores(client, source, targets, to, source_language))
    for target, given in zip(targets, scores, strict=True):
        typer.echo(_json(target, given) if as_json else f"{given.log_probability:.4f}\t{target}")


async def _scores(
    client: aio.AsyncClient, source: str, targets: list[str], to: str, source_language: str
) -> list[Score]:
    async with client:
        return await client.score(source, targets, to, source_language=source_language)


def _json(target: str, given: Score) -> str:
    tokens = [
        {"id": token.id, "text": token.text, "log_probability": token.log_probability}
        for token in given.tokens
    ]
    line = {"target": target, "log_probability": given.log_probability, "tokens": tokens}
    return json.dumps(line, ensure_ascii=False)
