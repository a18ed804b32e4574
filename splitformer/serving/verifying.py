"""`splitformer verify`: a model folder through our arithmetic and through Transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitformer import native
from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.comparing_speech import SpeechPair
from splitformer.serving.comparing_text import TextPair


def verify(
    folder: Annotated[Path, typer.Argument(help="Model folder, as downloaded.")],
    source_language: Annotated[str, typer.Option(help="Language of the sources.")] = "",
    target_language: Annotated[
        str, typer.Option(help="Target language; for speech, the spoken language.")
    ] = "",
) -> None:
    """Compare Splitformer with Hugging Face Transformers on a model folder.

    Transformers must be installed. The exit status is 1 if the two differ by more than rounding in
    fp32. The effect of int8 is shown as well.
    """
    try:
        checkpoint = Checkpoint(folder)
        kind = TextPair if checkpoint.description.speech is None else SpeechPair
        pair = kind(checkpoint, source_language, target_language)
        results = {precision: pair.compare(precision) for precision in _precisions()}
    except ConfigurationError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    for precision, result in results.items():
        for name, value in result.rows():
            typer.echo(f"{precision:<6} {name:<18} {value}")
    if not results["fp32"].passed:
        typer.echo("the same: no")
        raise typer.Exit(1)
    typer.echo("the same: yes, up to rounding in fp32")


def _precisions() -> tuple[str, ...]:
    return ("fp32", "int8") if native.available() else ("fp32",)
