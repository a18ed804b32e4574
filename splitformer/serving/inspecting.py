"""`splitformer inspect`: what a model folder holds, whether it is supported, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from splitformer.errors import ConfigurationError
from splitformer.model.cache import CrossCache, SelfCache
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.config import TransformerConfig
from splitformer.model.families.fields import GENERATION
from splitformer.model.files import Files
from splitformer.model.shapes import (
    Shapes,
    decoder_shapes,
    encoder_shapes,
    parameters,
    weight_bytes,
)

_CACHE_BYTES = {"int8": 2, "fp32": 4}
"""Of an element of keys and values: 16 bits where weights are in 8."""

_LANGUAGES_SHOWN = 8
_SUGGESTED: dict[str, Any] = {
    "num_beams": 1,
    "length_penalty": 1.0,
    "min_length": 0,
    "max_length": None,
    "early_stopping": False,
    "do_sample": False,
}
"""Options that checkpoints suggest and callers ask for, and the value that means nothing."""


def inspect(
    folder: Annotated[Path, typer.Argument(help="Model folder, as downloaded.")],
) -> None:
    """Describe a model folder: what it is, whether it is supported, how much memory it takes.

    No service is needed. The exit status is 1 if the folder cannot be served.
    """
    typer.echo(_row("folder", str(folder)))
    try:
        checkpoint = Checkpoint(folder)
        checkpoint.check_values()
    except ConfigurationError as error:
        typer.echo(_row("supported", f"no: {error}"))
        raise typer.Exit(1) from error
    typer.echo(_row("supported", "yes"))
    for name, value in facts(checkpoint):
        typer.echo(_row(name, value))


def facts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of a model that is supported, as names and values."""
    description, config = checkpoint.description, checkpoint.description.architecture
    yield "name", description.name
    yield "family", description.family
    yield "fingerprint", checkpoint.fingerprint
    yield (
        "stored as",
        f"{len(checkpoint.weights.files)} file(s), {', '.join(checkpoint.weights.kinds)}",
    )
    yield from _languages(checkpoint)
    yield "layers", f"{config.encoder_layers} + {config.decoder_layers}"
    yield "width", f"{config.d_model}"
    source = f"{config.source_vocabulary_size:,} source" if config.mel_bins == 0 else "audio"
    yield "vocabulary", f"{source}, {config.target_vocabulary_size:,} target"
    yield "longest", f"source {config.longest_source:,}, target {config.max_positions:,} positions"
    for name, half in halves(checkpoint).items():
        yield from _sizes(name, config, half)
    stack = config.decoder
    for precision, size in _CACHE_BYTES.items():
        cross = CrossCache.bytes_for(1, stack.layers, stack.width, size)
        own = SelfCache.bytes_for(config.max_positions, stack.layers, stack.width, size)
        yield (
            f"session, {precision}",
            f"{cross:,} bytes per source position, {own:,} for the longest target",
        )
    if defaults := checkpoint.defaults.set:
        yield "defaults", f"{_listed(defaults)} (unless callers ask for something else)"
    if suggested := _suggested(Files(checkpoint.folder)):
        yield "suggests", f"{suggested} (callers must ask for it)"


def halves(checkpoint: Checkpoint) -> dict[str, Shapes]:
    """Return the tensors of both halves."""
    config = checkpoint.description.architecture
    return {"encoder": encoder_shapes(config), "decoder": decoder_shapes(config)}


def _languages(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    languages = checkpoint.description.languages
    yield "sources", _some(tuple(filter(None, languages.sources))) or "any language"
    if languages.targets:
        where = "chosen on the decoder's side" if languages.on_decoder else "bound to the memory"
        yield "targets", f"{_some(languages.targets)}; {where}"
    else:
        yield "targets", "not named"


def _sizes(name: str, config: TransformerConfig, half: Shapes) -> Iterator[tuple[str, str]]:
    yield name, f"{parameters(config, half) / 1e6:,.1f} M parameters"
    for precision in _CACHE_BYTES:
        size = weight_bytes(half, precision) / 2**20
        yield f"{name}, {precision}", f"about {size:,.0f} MiB of weights"


def _suggested(files: Files) -> str:
    name = GENERATION if files.has(GENERATION) else "config.json"
    values = files.settings(name)
    given = {key: values[key] for key in _SUGGESTED if values.get(key) is not None}
    return _listed({key: v for key, v in given.items() if v != _SUGGESTED[key]})


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:_LANGUAGES_SHOWN])
    more = len(names) - _LANGUAGES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _row(name: str, value: str) -> str:
    return f"{name:<14} {value}"
