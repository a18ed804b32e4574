"""Options that several subcommands share."""

from __future__ import annotations

from typing import Annotated

import typer

from splitformer_client.settings import (
    DECODER_VARIABLE,
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    ENCODER_VARIABLE,
)

EncoderOption = Annotated[
    str,
    typer.Option("--encoder", envvar=ENCODER_VARIABLE, help="Address of the encoder service."),
]
DecoderOption = Annotated[
    str,
    typer.Option("--decoder", envvar=DECODER_VARIABLE, help="Address of the decoder service."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]

__all__ = [
    "DEFAULT_DECODER",
    "DEFAULT_ENCODER",
    "DecoderOption",
    "EncoderOption",
    "JsonOption",
]
