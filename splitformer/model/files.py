"""The small files of a model folder, read with errors that name the file and what is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from splitformer.errors import ConfigurationError


class Files:
    """Configuration and tokenizer files of a folder.

    Attributes:
        folder: Where they are.
        digests: SHA-256 of the files that belong to the model's identity and were read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.digests: dict[str, str] = {}
        self._objects: dict[str, dict[str, Any]] = {}

    def has(self, name: str) -> bool:
        """True if there is such a file."""
        return (self.folder / name).is_file()

    def settings(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file whose meaning, not whose bytes, is the model's."""
        if name not in self._objects:
            self._objects[name] = self._object(name, self._read(name))
        return self._objects[name]

    def vocabulary(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file that is part of the model's identity."""
        if name not in self.digests:
            self._objects[name] = self._object(name, self.content(name))
        return self._objects[name]

    def content(self, name: str) -> bytes:
        """Return a file that is part of the model's identity."""
        data = self._read(name)
        self.digests[name] = hashlib.sha256(data).hexdigest()
        return data

    def _read(self, name: str) -> bytes:
        check_bare(name, name)
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{name}: cannot be read: {error}") from error

    def _object(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            values = json.loads(data)
        except ValueError as error:
            raise ConfigurationError(f"{name}: is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigurationError(f"{name}: must hold an object, got {type(values).__name__}")
        return values


def check_bare(field: str, name: str) -> None:
    """ConfigurationError unless `name` is a file name and nothing more."""
    if Path(name).name != name or name in (".", ".."):
        raise ConfigurationError(f"{field}: must be a bare file name, got {name!r}")
