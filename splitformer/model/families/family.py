"""What a family of checkpoints must say about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from splitformer.model.config import TransformerConfig
from splitformer.model.description import Description
from splitformer.model.files import Files
from splitformer.model.tokenizer import Tokenizer
from splitformer.native import StoredArray


def unchanged(tensor: StoredArray) -> StoredArray:
    """Return the tensor as it is."""
    return tensor


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one of our tensors is kept.

    Attributes:
        names: Names it may have; the first that exists counts. Tied tensors share theirs.
        convert: What makes ours of it.
        optional: All zeros if it is missing.
    """

    names: tuple[str, ...]
    convert: Callable[[StoredArray], StoredArray] = unchanged
    optional: bool = False


class Family(Protocol):
    """A family of published checkpoints.

    Attributes:
        name: As ModelInfo and Description show it.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    def describe(self, files: Files) -> Description:
        """Read a folder's configuration.

        Raises:
            ConfigurationError: It lacks something or asks for what we do not have.
        """

    def tokenizer(self, files: Files, description: Description) -> Tokenizer:
        """Open a folder's tokenizer; ConfigurationError if it cannot be used."""

    def stored(self, name: str, config: TransformerConfig) -> Stored:
        """Say where a tensor of ours, "encoder." or "decoder." before its name, is kept."""

    def is_redundant(self, name: str, config: TransformerConfig) -> bool:
        """True for a stored tensor that is no parameter of ours, and rightly so."""
