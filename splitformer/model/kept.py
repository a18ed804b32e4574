"""What is made of a model once and kept, so that the next start is quick: in a folder of its own.

Every file is whole or not there: it is written under another name, made durable and then renamed.
Which model a file was made of stands in it, so that a changed model is not taken for the old one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

import numpy as np

from splitformer.errors import ConfigurationError
from splitformer.model.half import Half, StoredHalf
from splitformer.model.shapes import Shapes, is_map
from splitformer.model.stored import SCALES, TensorFile
from splitformer.native import FloatArray, StoredArray, quantised

FOLDER = ".splitformer"
"""Where it is kept beside a model."""

VERSION = "1"
"""Of the files' contents; changed whenever quantising would give other numbers."""

_FINGERPRINT = "fingerprint.json"
_ROWS_BYTES = 1 << 20


class Kept:
    """The folders in which things that are made of one model may be kept.

    Args:
        folders: Where to look, in this order; what is new goes into the first that can be written
            to. Empty: nothing is kept.
    """

    def __init__(self, folders: tuple[Path, ...] = ()) -> None:
        self._folders = folders

    @classmethod
    def of(cls, model: Path, choice: str, beside: bool = True) -> Kept:
        """Return where to keep what is made of a model.

        Args:
            model: Its folder.
            choice: "auto": beside the model, or else in the user's cache; "off": nowhere; or a
                folder, which may be the same for all models.
            beside: With "auto", beside the model is a good place.
        """
        own = hashlib.sha256(str(model.resolve()).encode()).hexdigest()[:24]
        if choice == "off":
            return cls()
        if choice != "auto":
            return cls((Path(choice) / own,))
        given = os.environ.get("XDG_CACHE_HOME")
        home = Path(given) if given else Path("~/.cache").expanduser()
        shared = home / "splitformer" / "models" / own
        return cls((model / FOLDER, shared) if beside else (shared,))

    def fingerprint(self, key: str, compute: Callable[[], str]) -> str:
        """Return a fingerprint: the kept one, or else what is computed now.

        Args:
            key: Changes whenever the fingerprint may.
            compute: Computes it.
        """
        for folder in self._folders:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                content = json.loads((folder / _FINGERPRINT).read_bytes())
                if content["key"] == key:
                    return str(content["fingerprint"])
        found = compute()
        content = json.dumps({"key": key, "fingerprint": found}).encode()
        self._keep(_FINGERPRINT, lambda file: file.write(content))
        return found

    def quantised(
        self, name: str, fingerprint: str, half: StoredHalf, check: Callable[[], None]
    ) -> Half:
        """Return a half with its maps quantised, as they are kept or as they are now written.

        Args:
            name: "encoder" or "decoder".
            fingerprint: The model's.
            half: Where the tensors come from; returned itself if nothing can be kept.
            check: Refuses tensors that must not be served; not called for what is kept.
        """
        file_name = f"{name}-int8.safetensors"
        notes = {"version": VERSION, "fingerprint": fingerprint}
        heads = _heads(half.shapes)
        for folder in self._folders:
            file = _opened(folder / file_name, notes, heads)
            if file is not None:
                return QuantisedHalf(half, file)
        check()
        written = self._keep(file_name, lambda file: _write(file, half, heads, notes))
        return half if written is None else QuantisedHalf(half, TensorFile(written))

    def _keep(self, name: str, write: Callable[[IO[bytes]], object]) -> Path | None:
        """Write a file where that is possible; return where, None if nowhere."""
        for folder in self._folders:
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(folder / name, write)
                return folder / name
        return None


class QuantisedHalf:
    """A half whose maps have been quantised, as a `Half`; see there.

    Args:
        half: The rest of it.
        file: The maps and their scales.
    """

    def __init__(self, half: Half, file: TensorFile) -> None:
        self.config = half.config
        self._half = half
        self._file = file

    def has(self, name: str) -> bool:
        """True if there is such a tensor."""
        return self._half.has(name)

    def array(self, name: str) -> StoredArray:
        """Return it as it is stored."""
        return self._half.array(name)

    def map(self, name: str) -> tuple[StoredArray, FloatArray | None]:
        """Return a map's weights in 8 bits, and their scales."""
        return self._file.array(name), self._file.array(name + SCALES).copy()


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file that is whole or not there, whatever happens meanwhile.

    Raises:
        OSError: It cannot be written.
    """
    _sweep(path)
    half = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with half.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, which a crash does too
            write(file)
            file.flush()
            os.fsync(file.fileno())
            half.replace(path)
        _make_durable(path.parent)
    finally:
        half.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove what crashes have left: unfinished files that nobody is writing."""
    for left in path.parent.glob(f".{path.name}.*"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _make_durable(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _heads(shapes: Shapes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name to type and shape of all that is kept of a half; scales first, which need alignment."""
    maps = {name: shape for name, shape in shapes.items() if is_map(name)}
    scales = {name + SCALES: ("F32", shape[:1]) for name, shape in maps.items()}
    return scales | {name: ("I8", shape) for name, shape in maps.items()}


def _opened(
    path: Path, notes: Mapping[str, str], heads: Mapping[str, tuple[str, tuple[int, ...]]]
) -> TensorFile | None:
    """Open a kept file; None if it is missing, damaged, or of another model or version."""
    try:
        file = TensorFile(path)
    except ConfigurationError:
        return None
    found = {name: (head.kind, head.shape) for name, head in file.heads.items()}
    return file if file.metadata == notes and found == heads else None


def _write(
    file: IO[bytes],
    half: Half,
    heads: Mapping[str, tuple[str, tuple[int, ...]]],
    notes: Mapping[str, str],
) -> None:
    """Write a safetensors file, a few rows at a time; the scales are filled in at the end."""
    content: dict[str, object] = {"__metadata__": notes}
    end = 0
    for name, (kind, shape) in heads.items():
        begin, end = end, end + math.prod(shape) * (4 if kind == "F32" else 1)
        content[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(content).encode()
    header += b" " * (-len(header) % 8)
    file.write(len(header).to_bytes(8, "little") + header)
    first, scales = file.tell(), []
    file.seek(sum(4 * shape[0] for kind, shape in heads.values() if kind == "F32"), os.SEEK_CUR)
    for name in (name for name, (kind, _) in heads.items() if kind == "I8"):
        for weights, steps in _pieces(half.array(name)):
            file.write(weights.data)
            scales.append(steps)
    file.seek(first)
    file.write(np.concatenate(scales).data)


def _pieces(weight: StoredArray) -> Iterator[tuple[StoredArray, FloatArray]]:
    rows = max(1, _ROWS_BYTES // max(1, weight.shape[1] * weight.itemsize))
    for begin in range(0, len(weight), rows):
        yield quantised(weight[begin : begin + rows])
