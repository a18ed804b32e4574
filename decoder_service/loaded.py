"""A model as the decoder service runs it: loaded, described, measured, and run once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decoder_service.opening import OpeningRules
from decoder_service.settings import DecoderSettings
from splitformer.generation import (
    Drafting,
    GenerationOptions,
    Sequential,
    SpeechRules,
    Target,
    Vocabulary,
    row_costs_of,
    run,
)
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.description import Description
from splitformer.model.shapes import decoder_shapes
from splitformer.model.stepping import StepDecoder
from splitformer.serving import kernels, models
from splitformer.serving.fleet import Room
from splitformer.v1 import model_pb2


@dataclass(frozen=True, slots=True)
class Loaded:
    """A decoder and what is known of its model.

    Attributes:
        checkpoint: Where it comes from.
        decoder: Takes the steps.
        vocabulary: What may be generated.
        numerics: Fingerprint of how it computes.
        info: What callers are told of it.
        rules: What must hold before a session is opened.
        drafting: What guessing several tokens at once has to know.
    """

    checkpoint: Checkpoint
    decoder: StepDecoder
    vocabulary: Vocabulary
    numerics: str
    info: model_pb2.ModelInfo
    rules: OpeningRules
    drafting: Drafting


def load(settings: DecoderSettings, room: Room | None) -> Loaded:
    """Load the model that the settings name; takes a while.

    Args:
        settings: Which model, and how to run it.
        room: What it has to keep to; None: nothing.

    Raises:
        ConfigurationError: It is no usable model, or what is to run it is not at hand.
        SplitformerError: It does not fit into the room.
    """
    checkpoint = models.open_within(settings, room, decoder_shapes)
    vocabulary = _vocabulary(checkpoint.description)
    decoder = kernels.step_decoder(checkpoint, settings.arithmetic, settings.memory_bytes)
    kernels.give_back()
    _warm_up(checkpoint, decoder, vocabulary)
    numerics = models.numerics(decoder.precision, settings.memory_dtype, decoder.kernel)
    return Loaded(
        checkpoint,
        decoder,
        vocabulary,
        numerics,
        _described(checkpoint, decoder, settings, numerics),
        OpeningRules(checkpoint, settings.memory_dtype, decoder),
        _measured(checkpoint, decoder, vocabulary),
    )


def _vocabulary(description: Description) -> Vocabulary:
    speech = description.speech
    return Vocabulary(
        description.eos_id,
        description.never_generated,
        description.architecture.target_vocabulary_size,
        description.end_at_limit,
        SpeechRules.of(speech, description.eos_id) if speech is not None else None,
    )


def _warm_up(checkpoint: Checkpoint, decoder: StepDecoder, vocabulary: Vocabulary) -> None:
    """Run one step outside the engine, so that the first caller does not pay for set-up."""
    description = checkpoint.description
    state = decoder.begin(np.zeros((1, description.architecture.d_model), np.float32))
    target = Target((description.eos_id,), state, checkpoint.tokenizer.detokenizer(), 1)
    run(decoder, Sequential(target, GenerationOptions(), 1, vocabulary), vocabulary.never)


def _described(
    checkpoint: Checkpoint, decoder: StepDecoder, settings: DecoderSettings, numerics: str
) -> model_pb2.ModelInfo:
    config, shapes = decoder.config, decoder_shapes(decoder.config)
    info = models.model_info(
        checkpoint, decoder, shapes, settings.memory_dtype, numerics, settings.device
    )
    info.layers, info.vocabulary_size = config.decoder_layers, config.target_vocabulary_size
    return info


def _measured(checkpoint: Checkpoint, decoder: StepDecoder, vocabulary: Vocabulary) -> Drafting:
    """Say what guessing several tokens at once has to know; measures what rows cost."""
    shared = checkpoint.description.architecture.share_embeddings
    unusable = frozenset((*vocabulary.never, vocabulary.eos_id))
    return Drafting(
        costs=row_costs_of(decoder),
        lossless=decoder.batch_invariant,
        token_kinds=checkpoint.tokenizer.token_kinds(vocabulary.size),
        unusable=unusable if shared else None,
    )
