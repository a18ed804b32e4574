"""Checkpoints on disk: what they hold, who they are, and loading one half of one.

A folder holds `config.json`, weights and a tokenizer. Its family (`splitformer.model.families`)
says what they mean.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from splitformer.errors import ConfigurationError
from splitformer.model.config import TransformerConfig
from splitformer.model.defaults import Defaults
from splitformer.model.families import family_of
from splitformer.model.files import Files
from splitformer.model.half import Half, StoredHalf
from splitformer.model.kept import Kept
from splitformer.model.shapes import decoder_shapes, encoder_shapes
from splitformer.model.tokenizer import SourcePiece, Tokenizer
from splitformer.model.weights import FLOATS, Weights
from splitformer.native import Precision, StoredArray

if TYPE_CHECKING:
    from splitformer.model.decoder import Decoder
    from splitformer.model.encoder import Encoder
    from splitformer.model.transformer import Transformer


class Checkpoint:
    """A model folder, opened: described and checked, weights not loaded yet.

    Weights are mapped: the folder's files may be replaced while it is open, but not written to.

    Args:
        folder: Where the files are.
        kept: Where fingerprints and quantised weights are kept; None: nowhere.

    Attributes:
        folder: Where the files are.
        description: What the configuration comes to.
        defaults: Options of generation for requests that say nothing of them.
        tokenizer: Turns sources into tokens and tokens into targets.
        weights: Where the tensors are.

    Raises:
        ConfigurationError: A file is missing, unreadable or contradicts another one, or a tensor
            is missing, too many or of the wrong shape, in either half.
    """

    def __init__(self, folder: Path, kept: Kept | None = None) -> None:
        self.folder = folder
        self._kept = kept or Kept()
        self._files = files = Files(folder)
        self._family = family_of(files)
        self.description = self._family.describe(files)
        self.defaults = Defaults.read(files)
        self.tokenizer = self._family.tokenizer(files, self.description)
        _check_vocabulary(self.tokenizer, self.description.architecture)
        self.weights = Weights(files)
        self._places = self._located()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over configuration, tokenizer and every tensor's name, dtype, shape and bytes.

        One that is kept counts as long as configuration, tokenizer and the weights' files are the
        same.
        """
        identity = {"description": self.description.identity(), "files": self._files.digests}
        text = json.dumps(identity, sort_keys=True)
        state = json.dumps(self.weights.state, sort_keys=True)
        key = hashlib.sha256(f"{text} {state}".encode()).hexdigest()
        return self._kept.fingerprint(key, lambda: self._computed_fingerprint(text))

    def _computed_fingerprint(self, identity: str) -> str:
        digest = hashlib.sha256(identity.encode())
        for name, shape in sorted(self.weights.shapes.items()):
            kind = FLOATS.get(self.weights.kind(name), self.weights.kind(name))
            digest.update(f"{name} {kind} {list(shape)}".encode())
            for piece in self.weights.pieces(name):
                digest.update(piece)
        return digest.hexdigest()

    def check_values(self, half: str = "") -> None:
        """Read what a half would, by default either; ConfigurationError if it is not finite."""
        places = {place for name, place in self._places.items() if name.startswith(half)}
        for place in sorted(place for place in places if place is not None):
            self.weights.check_finite(place)

    def half(self, name: Literal["encoder", "decoder"], precision: Precision) -> Half:
        """Return a half's tensors for the native library, checked; in 8 bits if they can be kept.

        Raises:
            ConfigurationError: Some are not finite.
        """
        half = self.encoder_half() if name == "encoder" else self.decoder_half()
        check = partial(self.check_values, f"{name}.")
        if precision == "int8":
            return self._kept.quantised(name, self.fingerprint, half, check)
        check()
        return half

    def encoder_half(self) -> StoredHalf:
        """Return the encoder's tensors, unread."""
        config = self.description.architecture
        return StoredHalf(config, encoder_shapes(config), partial(self._stored, "encoder."))

    def decoder_half(self) -> StoredHalf:
        """Return the decoder's tensors, unread."""
        config = self.description.architecture
        return StoredHalf(config, decoder_shapes(config), partial(self._stored, "decoder."))

    def load_encoder(self) -> Encoder:
        """Load the encoder's weights only, as float32, in evaluation mode, in torch."""
        from splitformer.model import loading  # noqa: PLC0415 (torch is for those who ask for it)

        self.check_values("encoder.")
        return loading.encoder(self.encoder_half())

    def load_decoder(self) -> Decoder:
        """Load the decoder's weights only, as float32, in evaluation mode, in torch."""
        from splitformer.model import loading  # noqa: PLC0415 (as above)

        self.check_values("decoder.")
        return loading.decoder(self.decoder_half())

    def load(self) -> Transformer:
        """Load both halves, as float32, in evaluation mode, in torch."""
        from splitformer.model import loading  # noqa: PLC0415 (as above)

        return loading.both(self.load_encoder(), self.load_decoder())

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
        expected = {f"encoder.{name}": shape for name, shape in encoder_shapes(config).items()}
        expected |= {f"decoder.{name}": shape for name, shape in decoder_shapes(config).items()}
        places = {name: self._place(name, shape) for name, shape in expected.items()}
        for name in sorted(self.weights.shapes.keys() - set(places.values())):
            if not self._family.is_redundant(name, config):
                raise ConfigurationError(f"weights: unexpected tensor {name!r}")
        return places

    def _place(self, name: str, expected: tuple[int, ...]) -> str | None:
        stored = self._family.stored(name, self.description.architecture)
        shapes = self.weights.shapes
        place = next((each for each in stored.names if each in shapes), None)
        if place is None:
            if stored.optional:
                return None
            raise ConfigurationError(f"weights: missing tensor {stored.names[0]!r}")
        if not self.weights.holds_floats(place):
            raise ConfigurationError(
                f"weights: tensor {place!r} must hold {', '.join(FLOATS)},"
                f" got {self.weights.kind(place)}"
            )
        try:
            actual = stored.convert(np.broadcast_to(np.float32(0), shapes[place])).shape
        except IndexError:
            actual = shapes[place]
        if actual != expected:
            raise ConfigurationError(
                f"weights: tensor {place!r} must have shape {list(expected)}, got {list(actual)}"
            )
        return place

    def _stored(self, half: str, name: str) -> StoredArray | None:
        """Read a tensor of ours; None if it is left out, and all zeros."""
        place = self._places[half + name]
        if place is None:
            return None
        convert = self._family.stored(half + name, self.description.architecture).convert
        return convert(self.weights.read(place))


def _check_vocabulary(tokenizer: Tokenizer, config: TransformerConfig) -> None:
    for side, pieces, size in (
        ("source", tokenizer.source_size, config.source_vocabulary_size),
        ("target", tokenizer.target_size, config.target_vocabulary_size),
    ):
        if pieces > size:
            raise ConfigurationError(
                f"tokenizer: has {pieces} pieces, more than the {side} vocabulary of {size}"
            )
