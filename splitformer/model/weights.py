"""Tensors of a model folder by name, whatever files they are in.

One in 8 bits counts as float32 if a factor for each of its rows lies beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from splitformer.errors import ConfigurationError
from splitformer.model.files import Files, check_bare
from splitformer.model.pickled import keep_as
from splitformer.model.stored import SCALES, Head, TensorFile, is_finite
from splitformer.native import StoredArray

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

FLOATS = {"F32": "torch.float32", "F16": "torch.float16", "BF16": "torch.bfloat16"}
"""Floating-point types that weights may be stored in, and what fingerprints call them."""


class Weights:
    """The tensors of a folder; opening reads their names and shapes only.

    Args:
        files: The folder.

    Attributes:
        shapes: Name to shape.
        kinds: Element types that occur, as safetensors names them.

    Raises:
        ConfigurationError: A file is missing, damaged or not the one that the index promises.
    """

    def __init__(self, files: Files) -> None:
        self._folder = files.folder
        self._files: dict[str, TensorFile] = {}
        self._places: dict[str, str] = {}
        if not files.has(INDEX):
            keep_as(files, SINGLE)
        if files.has(INDEX) and not files.has(SINGLE):
            self._open_shards(files.settings(INDEX))
        else:
            self._add(SINGLE)
        self._scaled = {name: name + SCALES for name in self._places if self._is_scaled(name)}
        names = self._places.keys() - set(self._scaled.values())
        self.shapes = {name: self._head(name).shape for name in self._places if name in names}
        self.kinds = tuple(sorted({self._head(name).kind for name in self._places}))

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that hold them."""
        return tuple(self._files)

    @property
    def state(self) -> dict[str, tuple[int, ...]]:
        """File name to what changes when the file does."""
        return {name: file.state for name, file in self._files.items()}

    def read(self, name: str) -> StoredArray:
        """Return one tensor as it is stored: a view, so that nothing is read yet.

        What is stored in 8 bits with its scales is multiplied out.
        """
        values = self._array(name)
        if name in self._scaled:
            values = values * self._array(self._scaled[name])[:, None]
        return values

    def kind(self, name: str) -> str:
        """Element type of a tensor, as safetensors names it."""
        return self._head(name).kind

    def holds_floats(self, name: str) -> bool:
        """True if a tensor's numbers are floating-point ones, or come to them."""
        return self.kind(name) in FLOATS or name in self._scaled

    def pieces(self, name: str) -> Iterator[memoryview]:
        """Yield a tensor's bytes, some at a time; behind them those of its scales."""
        yield from self._files[self._places[name]].pieces(name)
        if name in self._scaled:
            yield from self.pieces(self._scaled[name])

    def check_finite(self, name: str) -> None:
        """ConfigurationError if a tensor holds infinities or NaNs."""
        floats = self._scaled.get(name, name)
        kind = self._array(floats).dtype
        if not all(is_finite(np.frombuffer(piece, kind)) for piece in self.pieces(floats)):
            raise ConfigurationError(f"tensor {name!r}: must hold finite numbers only")

    def _array(self, name: str) -> StoredArray:
        return self._files[self._places[name]].array(name)

    def _is_scaled(self, name: str) -> bool:
        if name + SCALES not in self._places:
            return False
        own, scales = self._head(name), self._head(name + SCALES)
        return (own.kind, scales.kind, scales.shape) == ("I8", "F32", own.shape[:1])

    def _head(self, name: str) -> Head:
        return self._files[self._places[name]].heads[name]

    def _open_shards(self, index: dict[str, Any]) -> None:
        promised = index.get("weight_map")
        if not isinstance(promised, dict) or not promised:
            raise ConfigurationError(f"{INDEX}: weight_map must map names of tensors to files")
        for name, shard in promised.items():
            if not isinstance(shard, str):
                raise ConfigurationError(f"{INDEX}: the file of {name!r} is no name, got {shard!r}")
            check_bare(f"{INDEX}: the file of {name!r}", shard)
        for shard in sorted(set(promised.values())):
            self._add(shard)
        for name, shard in promised.items():
            if self._places.get(name) != shard:
                raise ConfigurationError(
                    f"{shard}: missing tensor {name!r}, which {INDEX} promises"
                )

    def _add(self, place: str) -> None:
        file = self._files[place] = TensorFile(self._folder / place)
        if twice := sorted(file.heads.keys() & self._places.keys()):
            raise ConfigurationError(f"{place}: tensor {twice[0]!r} is in another file too")
        self._places |= dict.fromkeys(file.heads, place)
