"""Older checkpoints, whose tensors are pickled: read once, without running code, and kept safe.

`pytorch_model.bin` can hold code that runs when it is read. torch's weights-only loader refuses
that; what it reads is written beside it as safetensors, which hold nothing but tensors, and is what
is read from then on.
"""

from __future__ import annotations

import os
import pickle
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from splitformer.errors import ConfigurationError
from splitformer.model.files import Files, check_bare

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = "pytorch_model.bin"
PICKLED_INDEX = "pytorch_model.bin.index.json"
_SOURCE = "splitformer.converted_from"
"""Key in the metadata of files that we wrote: names, sizes and times of what they were made of."""


def keep_as(files: Files, name: str) -> None:
    """Make sure that a folder with pickled tensors only has them as the safetensors file `name`.

    A file of that name that we did not write is left alone. Writing is safe against a crash halfway
    and against two services that do it at the same time.

    Raises:
        ConfigurationError: The tensors hold code, are damaged, or cannot be kept.
    """
    parts = _parts(files)
    if not parts:
        return
    target = files.folder / name
    state = _state(files.folder, parts)
    if target.exists() and _written_from(target) in (None, state):
        return
    _write(target, _tensors(files.folder, parts), state)


def _parts(files: Files) -> list[str]:
    """Names of the pickled files; none if there are none."""
    if files.has(PICKLED):
        return [PICKLED]
    if not files.has(PICKLED_INDEX):
        return []
    promised = files.settings(PICKLED_INDEX).get("weight_map")
    if not isinstance(promised, dict) or not all(isinstance(p, str) for p in promised.values()):
        raise ConfigurationError(f"{PICKLED_INDEX}: weight_map must map names of tensors to files")
    parts = sorted(set(promised.values()))
    for part in parts:
        check_bare(f"{PICKLED_INDEX}: a file", part)
    return parts


def _state(folder: Path, parts: list[str]) -> str:
    """Tell files apart from what they may be replaced by."""
    try:
        stats = [(part, (folder / part).stat()) for part in parts]
    except OSError as error:
        raise ConfigurationError(f"{parts[0]}: cannot be read: {error}") from error
    return ";".join(f"{part}:{stat.st_size}:{stat.st_mtime_ns}" for part, stat in stats)


def _written_from(path: Path) -> str | None:
    """What a file of ours was made of; None if it is not ours."""
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get(_SOURCE)
    except (OSError, SafetensorError):
        return ""


def _tensors(folder: Path, parts: list[str]) -> dict[str, Tensor]:
    """Read all parts; of tensors that are one and the same, the first name counts."""
    tensors: dict[str, Tensor] = {}
    seen: set[tuple[object, ...]] = set()
    for part in parts:
        for name, tensor in _read(folder / part):
            place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
            key = (*place, tuple(tensor.shape), tensor.stride())
            if tensor.numel() and key in seen:
                continue
            seen.add(key)
            tensors[name] = tensor.contiguous()
    return tensors


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        import torch  # noqa: PLC0415 (200 MiB that no other folder needs)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{path.name}: reading pickled tensors, once, needs torch, which is not installed here:"
            " run `splitformer inspect` on the folder where splitformer[torch] is"
        ) from error
    try:
        mapped = zipfile.is_zipfile(path)
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise ConfigurationError(
            f"{path.name}: refused: it holds more than tensors, such as code that would run when it"
            f" is read, or is damaged: {str(error).splitlines()[0]}"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise ConfigurationError(f"{path.name}: cannot be read: {error}") from error
    if not isinstance(loaded, dict) or not all(
        isinstance(v, torch.Tensor) for v in loaded.values()
    ):
        raise ConfigurationError(f"{path.name}: must hold tensors by name")
    yield from ((str(name), tensor) for name, tensor in loaded.items())


def _write(target: Path, tensors: dict[str, Tensor], state: str) -> None:
    """Write a file under another name first, so that one of this name is always whole."""
    from safetensors.torch import save_file  # noqa: PLC0415 (as above)

    whole = {name: tensor.clone() for name, tensor in tensors.items()}
    half = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        save_file(whole, half, metadata={"format": "pt", _SOURCE: state})
        os.replace(half, target)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(
            f"{target.name}: cannot be written beside the pickled tensors, once, to be read from"
            f" then on: {error}"
        ) from error
    finally:
        half.unlink(missing_ok=True)
