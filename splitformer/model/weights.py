"""Tensors of a model folder by name, whatever files they are in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from splitformer.errors import ConfigurationError
from splitformer.model.files import Files, check_bare
from splitformer.model.pickled import keep_as

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

T = TypeVar("T")


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
        self._places: dict[str, str] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: tuple[str, ...] = ()
        if not files.has(INDEX):
            keep_as(files, SINGLE)
        if files.has(INDEX) and not files.has(SINGLE):
            self._open_shards(files.settings(INDEX))
        else:
            self._add(SINGLE)

    @property
    def files(self) -> int:
        """How many files hold them."""
        return len(set(self._places.values()))

    def read(self, name: str) -> Tensor:
        """Read one tensor, in the type it is stored in."""
        place = self._places[name]
        tensor: Tensor = _guarded(self._folder / place, lambda file: file.get_tensor(name))
        return tensor

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
        def heads(file: Any) -> dict[str, tuple[tuple[int, ...], str]]:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: (tuple(part.get_shape()), part.get_dtype()) for n, part in slices.items()}

        read = _guarded(self._folder / place, heads)
        found = {name: shape for name, (shape, _) in read.items()}
        self.kinds = tuple(sorted({*self.kinds, *(kind for _, kind in read.values())}))
        if twice := sorted(found.keys() & self.shapes.keys()):
            raise ConfigurationError(f"{place}: tensor {twice[0]!r} is in another file too")
        self.shapes |= found
        self._places |= dict.fromkeys(found, place)


def finite(name: str, tensor: Tensor) -> Tensor:
    """Return the tensor as float32; ConfigurationError if it holds infinities or NaNs.

    What is returned is a copy: a view would keep the whole file in memory that it is a part of.
    """
    if not tensor.is_floating_point():
        raise ConfigurationError(
            f"tensor {name!r}: must hold floating-point numbers, got {tensor.dtype}"
        )
    exact = tensor.to(torch.float32, copy=True)
    if not bool(torch.isfinite(exact).all()):
        raise ConfigurationError(f"tensor {name!r}: must hold finite numbers only")
    return exact


def _guarded(path: Path, read: Callable[[Any], T]) -> T:
    """Open a safetensors file and read from it; errors name the file."""
    try:
        with safe_open(path, framework="pt") as file:
            return read(file)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"{path.name}: cannot be read: {error}") from error
