"""Checkpoints on disk: what they hold, who they are, and loading one half of one.

A folder holds `config.json`, weights and a tokenizer. Its family (`splitformer.model.families`)
says what they mean.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.decoder import Decoder
from splitformer.model.encoder import Encoder
from splitformer.model.families import family_of
from splitformer.model.files import Files
from splitformer.model.tokenizer import SourcePiece, Tokenizer
from splitformer.model.transformer import Transformer
from splitformer.model.weights import Weights, finite

_Half = TypeVar("_Half", Encoder, Decoder)


class Checkpoint:
    """A model folder, opened: described and checked, weights not loaded yet.

    Args:
        folder: Where the files are.

    Attributes:
        folder: The same.
        description: What the configuration comes to.
        tokenizer: Turns sources into tokens and tokens into targets.
        weights: Where the tensors are.

    Raises:
        ConfigurationError: A file is missing, unreadable or contradicts another one, or a tensor
            is missing, too many or of the wrong shape, in either half.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = files = Files(folder)
        self._family = family_of(files)
        self.description = self._family.describe(files)
        self.tokenizer = self._family.tokenizer(files, self.description)
        _check_vocabulary(self.tokenizer, self.description.architecture)
        self.weights = Weights(files)
        self._places = self._located()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration, tokenizer and every tensor's name, dtype, shape and bytes."""
        digest = hashlib.sha256()
        identity = {"description": self.description.identity(), "files": self._files.digests}
        digest.update(json.dumps(identity, sort_keys=True).encode())
        for name in sorted(self.weights.shapes):
            tensor = self.weights.read(name)
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def check_values(self) -> None:
        """Read everything that either half would; ConfigurationError if a number is not finite."""
        for place in sorted({place for place in self._places.values() if place is not None}):
            finite(place, self.weights.read(place))

    def load_encoder(self) -> Encoder:
        """Load the encoder's weights only, as float32, in evaluation mode."""
        with torch.device("meta"):
            encoder = Encoder(self.description.architecture)
        return self._load(encoder, "encoder.")

    def load_decoder(self) -> Decoder:
        """Load the decoder's weights only, as float32, in evaluation mode."""
        with torch.device("meta"):
            decoder = Decoder(self.description.architecture)
        return self._load(decoder, "decoder.")

    def load(self) -> Transformer:
        """Load both halves, as float32, in evaluation mode."""
        model = Transformer(self.description.architecture)
        model.encoder.load_state_dict(self.load_encoder().state_dict())
        model.decoder.load_state_dict(self.load_decoder().state_dict())
        return model.eval()

    def encode_source(
        self, text: str, source_language: str = "", target_language: str = ""
    ) -> list[SourcePiece]:
        """Tokenise a source as the encoder service does; the languages must be known."""
        languages = self.description.languages
        frame = languages.sources[source_language]
        if not languages.on_decoder:
            frame = frame.inside(languages.bindings[target_language])
        return self.tokenizer.encode_source(text, frame)

    def _located(self) -> dict[str, str | None]:
        """Find every tensor of both halves: our name to the stored one, None if it is left out.

        Raises:
            ConfigurationError: One is missing, has the wrong shape, or is none of ours.
        """
        config = self.description.architecture
        with torch.device("meta"):
            expected = Transformer(config).state_dict()
        places = {name: self._place(name, tensor) for name, tensor in expected.items()}
        for name in sorted(self.weights.shapes.keys() - set(places.values())):
            if not self._family.is_redundant(name, config):
                raise ConfigurationError(f"weights: unexpected tensor {name!r}")
        return places

    def _place(self, name: str, expected: Tensor) -> str | None:
        stored = self._family.stored(name, self.description.architecture)
        shapes = self.weights.shapes
        place = next((each for each in stored.names if each in shapes), None)
        if place is None:
            if stored.optional:
                return None
            raise ConfigurationError(f"weights: missing tensor {stored.names[0]!r}")
        try:
            actual = stored.convert(torch.empty(shapes[place], device="meta")).shape
        except (IndexError, RuntimeError):
            actual = torch.Size(shapes[place])
        if actual != expected.shape:
            raise ConfigurationError(
                f"weights: tensor {place!r} must have shape {list(expected.shape)},"
                f" got {list(actual)}"
            )
        return place

    def _load(self, half: _Half, prefix: str) -> _Half:
        config = self.description.architecture
        read: dict[str, Tensor] = {}  # tied tensors once
        tensors = {}
        for name, parameter in half.state_dict().items():
            place = self._places[prefix + name]
            if place is None:
                tensors[name] = torch.zeros(parameter.shape)
                continue
            if place not in read:
                read[place] = finite(place, self.weights.read(place))
            tensors[name] = self._family.stored(prefix + name, config).convert(read[place])
        half.load_state_dict(tensors, assign=True)
        half.embedding.place_positions()
        return half.eval().requires_grad_(False)


def _check_vocabulary(tokenizer: Tokenizer, config: TransformerConfig) -> None:
    for side, pieces, size in (
        ("source", tokenizer.source_size, config.source_vocabulary_size),
        ("target", tokenizer.target_size, config.target_vocabulary_size),
    ):
        if pieces > size:
            raise ConfigurationError(
                f"tokenizer: has {pieces} pieces, more than the {side} vocabulary of {size}"
            )
