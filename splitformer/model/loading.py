"""Stored halves as torch's modules, in float32 and in evaluation mode."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from splitformer.model.decoder import Decoder
from splitformer.model.encoder import Encoder
from splitformer.model.half import StoredHalf
from splitformer.model.stored import floats
from splitformer.model.transformer import Transformer

_Half = TypeVar("_Half", Encoder, Decoder)


def encoder(stored: StoredHalf) -> Encoder:
    """Load an encoder."""
    return _load(Encoder, stored)


def decoder(stored: StoredHalf) -> Decoder:
    """Load a decoder."""
    return _load(Decoder, stored)


def both(encoder: Encoder, decoder: Decoder) -> Transformer:
    """Put two halves of a model together."""
    model = Transformer(encoder.config)
    model.encoder.load_state_dict(encoder.state_dict())
    model.decoder.load_state_dict(decoder.state_dict())
    return model.eval()


def _load(kind: type[_Half], stored: StoredHalf) -> _Half:
    with torch.device("meta"):
        half = kind(stored.config)
    read: dict[tuple[int, tuple[int, ...]], Tensor] = {}  # tied tensors once
    tensors = {}
    for name in half.state_dict():
        values = stored.array(name)
        key = (values.ctypes.data, values.shape)
        if key not in read:
            read[key] = torch.from_numpy(floats(values).copy())
        tensors[name] = read[key]
    half.load_state_dict(tensors, assign=True)
    half.embedding.place_positions()
    return half.eval().requires_grad_(False)
