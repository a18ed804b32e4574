"""The model that a service is told to run: finding it, describing it, checking ids against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import splitformer
from splitformer import wire
from splitformer.errors import ConfigurationError, InvalidArgumentError, violations_of_ids
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.config import TransformerConfig
from splitformer.model.defaults import Defaults
from splitformer.model.kept import Kept
from splitformer.model.shapes import Shapes, parameters, weight_bytes
from splitformer.model.speech import TRANSCRIBE, Speech
from splitformer.serving.arithmetic import ModelSettings
from splitformer.serving.fleet import Room
from splitformer.serving.kernels import held_precision
from splitformer.v1 import model_pb2, tensor_pb2

TASKS = {
    TRANSCRIBE: model_pb2.SPEECH_TASK_TRANSCRIBE,
    "translate": model_pb2.SPEECH_TASK_TRANSLATE,
}
"""Tasks of models of speech, by name."""

CHARACTERS_PER_TOKEN = 64
"""Far more than any text has on average; one with more is too long without being tokenised."""


def open_checkpoint(folder: str, cache: str = "off", name: str = "") -> Checkpoint:
    """Open a model folder, or the embedded model if `folder` is empty.

    Args:
        folder: The folder.
        cache: The setting of that name.
        name: Under which requests ask for it; empty: as it says itself.

    Raises:
        ConfigurationError: There is no usable model.
    """
    if folder:
        checkpoint = _open(Path(folder), Kept.of(Path(folder), cache))
        named = dataclasses.replace(checkpoint.description, name=name)
        checkpoint.description = named if name else checkpoint.description
        return checkpoint
    try:
        import splitformer_models  # noqa: PLC0415 (its own distribution; not needed with a folder)
    except ImportError as error:
        raise ConfigurationError(
            "model: names no folder, and the embedded model is not installed"
            " (pip install splitformer-models)"
        ) from error
    try:
        folder_of_ours = splitformer_models.model_path()
    except ValueError as error:
        raise ConfigurationError(f"model: the embedded model is not usable: {error}") from error
    return _open(folder_of_ours, Kept.of(folder_of_ours, cache, beside=False))


def open_within(
    settings: ModelSettings, room: Room | None, shapes_of: Callable[[TransformerConfig], Shapes]
) -> Checkpoint:
    """Open the model that the settings name, if the weights of our half fit into the room.

    Args:
        settings: Which model, and what is to run it.
        room: What it has to keep to; None: nothing.
        shapes_of: From the architecture, the tensors of our half.

    Raises:
        ConfigurationError: There is no usable model.
        SplitformerError: It does not fit into the room.
    """
    checkpoint = open_checkpoint(settings.model, settings.cache, room.name if room else "")
    if room is not None:
        shapes = shapes_of(checkpoint.description.architecture)
        room.admit(weight_bytes(shapes, held_precision(settings.arithmetic)))
    return checkpoint


def _open(folder: Path, kept: Kept) -> Checkpoint:
    try:
        checkpoint = Checkpoint(folder, kept)
    except ConfigurationError as error:
        raise ConfigurationError(f"model: {str(folder)!r} is no usable model: {error}") from error
    return checkpoint


def memory_dtype(name: str) -> tensor_pb2.DataType.ValueType:
    """Return the wire type of a setting; ConfigurationError if there is none of that name."""
    if name not in wire.DTYPE_NAMES:
        raise ConfigurationError(
            f"memory_dtype: must be one of {', '.join(wire.DTYPE_NAMES)}, got {name!r}"
        )
    return wire.DTYPE_NAMES[name]


def check_token_ids(ids: Sequence[int], size: int, field: str) -> None:
    """InvalidArgumentError TOKEN_OUT_OF_RANGE unless a vocabulary of `size` has all of them."""
    broken, more = violations_of_ids(ids, size, field)
    if broken:
        raise InvalidArgumentError.of_all(broken, reason="TOKEN_OUT_OF_RANGE", more=more)


def numerics(precision: str, dtype_name: str, kernel: str) -> str:
    """Name an arithmetic: equal names, and the same model, give the same bits."""
    return f"{precision}/{dtype_name}/{kernel}"


def fingerprint(checkpoint: Checkpoint, arithmetic: str) -> tensor_pb2.Fingerprint:
    """Return a checkpoint's fingerprints under an arithmetic, as `numerics` names it."""
    return tensor_pb2.Fingerprint(model=checkpoint.fingerprint, numerics=arithmetic)


class Half(Protocol):
    """An encoder or a decoder that has been loaded."""

    @property
    def precision(self) -> str: ...  # noqa: D102

    @property
    def batch_invariant(self) -> bool: ...  # noqa: D102


def model_info(
    checkpoint: Checkpoint,
    half: Half,
    shapes: Shapes,
    dtype_name: str,
    arithmetic: str,
    device: str,
) -> model_pb2.ModelInfo:
    """Describe what both halves of a model have in common, and the size of one of them.

    Args:
        checkpoint: The model.
        half: The one that we run.
        shapes: Its tensors.
        dtype_name: Wire type of memories.
        arithmetic: As `numerics` names it.
        device: Where the half runs.
    """
    description = checkpoint.description
    config = description.architecture
    return model_pb2.ModelInfo(
        name=description.name,
        family=description.family,
        fingerprint=fingerprint(checkpoint, arithmetic),
        memory_kind=tensor_pb2.MEMORY_KIND_SEQUENCE,
        d_model=config.d_model,
        heads=config.heads,
        max_positions=config.max_positions,
        source_language=description.languages.source,
        target_languages=description.languages.targets,
        language_on_decoder=description.languages.on_decoder,
        parameters=parameters(config, shapes),
        weight_bytes=weight_bytes(shapes, half.precision),
        precision=half.precision,
        memory_dtype=memory_dtype(dtype_name),
        device=device,
        batch_invariant=half.batch_invariant,
        server_version=splitformer.__version__,
        speech=_speech_info(description.speech) if description.speech is not None else None,
        generation_defaults=_defaults_info(checkpoint.defaults),
    )


def _defaults_info(defaults: Defaults) -> model_pb2.GenerationDefaults:
    message = model_pb2.GenerationDefaults()
    for name, value in defaults.set.items():
        setattr(message, name, value)
    return message


def _speech_info(speech: Speech) -> model_pb2.SpeechInfo:
    return model_pb2.SpeechInfo(
        sample_rate=speech.features.sample_rate,
        window_seconds=speech.features.window_seconds,
        tasks=[TASKS[task] for task in tuple(speech.tasks) or (TRANSCRIBE,)],
        detects_language=speech.detects,
        first_time_token=speech.first_time_id,
        time_seconds=speech.time_seconds,
    )
