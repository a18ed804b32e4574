"""One half of a model as plans are made of it: an architecture, and tensors by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from splitformer.model.config import TransformerConfig
from splitformer.native import FloatArray, StoredArray

if TYPE_CHECKING:  # whoever has one has torch; nobody else needs it
    from splitformer.model.decoder import Decoder
    from splitformer.model.encoder import Encoder


@runtime_checkable
class Half(Protocol):
    """The encoder or the decoder of a model.

    Attributes:
        config: The architecture.
    """

    @property
    def config(self) -> TransformerConfig: ...  # noqa: D102

    def has(self, name: str) -> bool:
        """True if the half has a tensor of this name (`splitformer.model.shapes`)."""

    def array(self, name: str) -> StoredArray:
        """Return a tensor as it is stored; views of mapped files where possible."""

    def map(self, name: str) -> tuple[StoredArray, FloatArray | None]:
        """Return a map's weights, as stored, or in 8 bits with their scales."""


class ModuleHalf:
    """A half that torch holds, as a `Half`; see there."""

    def __init__(self, module: Encoder | Decoder) -> None:
        self.config = module.config
        self._tensors = module.state_dict()

    def has(self, name: str) -> bool:
        """True if there is such a tensor."""
        return name in self._tensors

    def array(self, name: str) -> StoredArray:
        """Return it, as float32."""
        values: StoredArray = self._tensors[name].detach().float().cpu().contiguous().numpy()
        return values

    def map(self, name: str) -> tuple[StoredArray, FloatArray | None]:
        """Return a map's weights, as float32."""
        return self.array(name), None


class StoredHalf:
    """A half in files, as a `Half`; see there.

    Args:
        config: The architecture.
        shapes: Its tensors.
        read: Reads one of them, None: it is all zeros.
    """

    def __init__(
        self,
        config: TransformerConfig,
        shapes: Mapping[str, tuple[int, ...]],
        read: Callable[[str], StoredArray | None],
    ) -> None:
        self.config = config
        self.shapes = shapes
        self._read = read

    def has(self, name: str) -> bool:
        """True if there is such a tensor."""
        return name in self.shapes

    def array(self, name: str) -> StoredArray:
        """Return it as it is stored."""
        values = self._read(name)
        return np.zeros(self.shapes[name], np.float32) if values is None else values

    def map(self, name: str) -> tuple[StoredArray, FloatArray | None]:
        """Return a map's weights as they are stored."""
        return self.array(name), None


def half_of(given: Half | Encoder | Decoder) -> Half:
    """Return a half as such, whoever holds it."""
    return given if isinstance(given, Half) else ModuleHalf(given)
