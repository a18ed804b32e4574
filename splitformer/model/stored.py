"""Tensors as they lie in safetensors files, mapped into memory: read where they are looked at."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from splitformer.errors import ConfigurationError
from splitformer.native import FloatArray, StoredArray

_TYPES: dict[str, Any] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "I8": np.int8,
}
"""Element types as safetensors names them; numpy has no bfloat16."""

SCALES = ".scales"
"""Ends the name of the tensor with a factor for every row of one in 8 bits, float32."""

_EXPONENTS = {np.float32: (np.uint32, 0x7F800000), np.float16: (np.uint16, 0x7C00)}
_BRAIN_EXPONENT = (np.uint16, 0x7F80)
_PIECE = 1 << 20
"""Bytes that are looked at together."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a file says of a tensor before its bytes.

    Attributes:
        shape: Its shape.
        kind: Element type, as safetensors names it.
        begin: Where its bytes begin in the file.
        end: Where they end.
    """

    shape: tuple[int, ...]
    kind: str
    begin: int
    end: int


class TensorFile:
    """A safetensors file, mapped into memory; pages are read when they are looked at.

    Args:
        path: The file. It may be replaced by another one while it is open, but not written to.

    Attributes:
        heads: Its tensors by name.
        metadata: Its notes by name.
        state: Size, times and number: equal if the file is still the same.

    Raises:
        ConfigurationError: It is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            with safe_open(path, framework="numpy") as file:  # checks all that the header says
                self.metadata: dict[str, str] = file.metadata() or {}
            with path.open("rb") as opened:
                self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
                self.state = _state(os.fstat(opened.fileno()))
            self.heads = _heads(self._map)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ConfigurationError(f"{path.name}: cannot be read: {error}") from error

    def array(self, name: str) -> StoredArray:
        """Return a tensor as a view of the file; bfloat16 as uint16."""
        head = self.heads[name]
        kind = np.dtype(_TYPES[head.kind])
        count = (head.end - head.begin) // kind.itemsize
        return np.frombuffer(self._map, kind, count, head.begin).reshape(head.shape)

    def pieces(self, name: str) -> Iterator[memoryview]:
        """Yield a tensor's bytes, some at a time; of those no pages are kept in memory."""
        head = self.heads[name]
        for begin in range(head.begin, head.end, _PIECE):
            yield memoryview(self._map)[begin : min(begin + _PIECE, head.end)]
            self.forget(begin, _PIECE)

    def forget(self, begin: int, size: int) -> None:
        """Let go of the pages of a part; they come back when they are looked at."""
        first = begin // mmap.PAGESIZE * mmap.PAGESIZE
        last = min(begin + size, len(self._map))
        self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def floats(values: StoredArray) -> FloatArray:
    """Return stored numbers as float32, exactly."""
    if values.dtype == np.uint16:
        wide: FloatArray = (values.astype(np.uint32) << 16).view(np.float32)
        return wide
    return np.ascontiguousarray(values, np.float32)


def is_finite(values: StoredArray) -> bool:
    """True if there are no infinities or NaNs among stored numbers."""
    bits, exponent = _EXPONENTS.get(values.dtype.type, _BRAIN_EXPONENT)
    return not bool(((values.view(bits) & exponent) == exponent).any())


def _heads(mapped: mmap.mmap) -> dict[str, Head]:
    size = int.from_bytes(mapped[:8], "little")
    content = json.loads(mapped[8 : 8 + size])
    return {
        name: Head(
            tuple(values["shape"]),
            values["dtype"],
            *(8 + size + offset for offset in values["data_offsets"]),
        )
        for name, values in content.items()
        if name != "__metadata__"
    }


def _state(state: os.stat_result) -> tuple[int, ...]:
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev
