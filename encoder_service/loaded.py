"""A model as the encoder service runs it: loaded, and described."""

from __future__ import annotations

from dataclasses import dataclass

from encoder_service.settings import EncoderSettings
from encoder_service.sources import HeardSource, Sources, TokenizedSource
from splitformer import wire
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import SourceEncoder
from splitformer.model.shapes import encoder_shapes
from splitformer.serving import kernels, models
from splitformer.serving.fleet import Room
from splitformer.v1 import model_pb2, tensor_pb2


@dataclass(frozen=True, slots=True)
class Loaded:
    """An encoder and what is known of its model.

    Attributes:
        name: Under which requests ask for the model.
        sources: What it takes.
        encoder: Encodes them.
        dtype: Wire type of the memories.
        fingerprint: Of the model, and of how it computes.
        info: What callers are told of it.
    """

    name: str
    sources: Sources
    encoder: SourceEncoder
    dtype: tensor_pb2.DataType.ValueType
    fingerprint: tensor_pb2.Fingerprint
    info: model_pb2.ModelInfo

    def memory_bytes(self, rows: int) -> int:
        """Return how many bytes a memory of so many rows takes in its wire type."""
        return wire.packed_bytes(self.dtype, (rows, self.encoder.config.d_model))

    def header(
        self, source: TokenizedSource | HeardSource, keep_pieces: bool
    ) -> tensor_pb2.MemoryHeader:
        """Describe a source's memory, with its pieces or without."""
        return tensor_pb2.MemoryHeader(
            kind=tensor_pb2.MEMORY_KIND_SEQUENCE,
            model=self.name,
            fingerprint=self.fingerprint,
            dtype=self.dtype,
            shape=(len(source.given), self.encoder.config.d_model),
            source_tokens=[
                tensor_pb2.SourceToken(id=piece.id, begin=piece.begin, end=piece.end)
                for piece in (source.pieces if keep_pieces else ())
            ],
            target_language=source.target_language,
            source_text=source.text if keep_pieces else "",
        )


def load(settings: EncoderSettings, room: Room | None) -> Loaded:
    """Load the model that the settings name; takes a while.

    Args:
        settings: Which model, and how to run it.
        room: What it has to keep to; None: nothing.

    Raises:
        ConfigurationError: It is no usable model, or what is to run it is not at hand.
        SplitformerError: It does not fit into the room.
    """
    checkpoint = models.open_within(settings, room, encoder_shapes)
    sources = Sources(checkpoint)
    encoder = kernels.source_encoder(checkpoint, settings.arithmetic)
    numerics = models.numerics(encoder.precision, settings.memory_dtype, encoder.kernel)
    fingerprint = models.fingerprint(checkpoint, numerics)
    info = _described(checkpoint, encoder, settings, fingerprint.numerics)
    kernels.give_back()
    dtype = models.memory_dtype(settings.memory_dtype)
    return Loaded(checkpoint.description.name, sources, encoder, dtype, fingerprint, info)


def _described(
    checkpoint: Checkpoint, encoder: SourceEncoder, settings: EncoderSettings, numerics: str
) -> model_pb2.ModelInfo:
    config, shapes = encoder.config, encoder_shapes(encoder.config)
    info = models.model_info(
        checkpoint, encoder, shapes, settings.memory_dtype, numerics, settings.device
    )
    info.layers, info.vocabulary_size = config.encoder_layers, config.source_vocabulary_size
    return info
