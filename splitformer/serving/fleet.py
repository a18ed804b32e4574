"""The models of one process: the one that it was started with, and others that come and go by name.

Each is a service of its own with an engine of its own; budgets, stores and counters are shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from splitformer.errors import (
    AlreadyExistsError,
    ConfigurationError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    shown,
)
from splitformer.serving.logs import log
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import model_pb2

_POLL_SECONDS = 0.02
_logger = logging.getLogger("splitformer.models")


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """What a model that is loaded by name has to keep to.

    Attributes:
        name: Its name.
        admit: Told how many bytes its weights take, before they are loaded; raises if that is too
            much.
    """

    name: str
    admit: Callable[[int], None]


class Member(Protocol):
    """One model with all that serves it."""

    @property
    def name(self) -> str:
        """Under which requests ask for it."""

    @property
    def in_use(self) -> bool:
        """True while something needs it."""

    async def start(self, port: int) -> None:
        """Load and warm up; ConfigurationError if it cannot be served."""

    def info(self) -> model_pb2.ModelInfo:
        """Describe it, once started."""

    async def close(self) -> None:
        """Let everything go."""


M = TypeVar("M", bound=Member)


class Fleet(Generic[M]):
    """Models by name.

    Args:
        default: The one that serves requests that name none.
        make: Makes another one that shares what the default one shares: from its folder and room.
        root: The folder whose subfolders may be loaded; None: none may.
        budget: Bytes that the weights of all models may take.
        telemetry: Where to count.
    """

    def __init__(
        self,
        default: M,
        make: Callable[[Path, Room], M],
        root: Path | None,
        budget: int,
        telemetry: Telemetry,
    ) -> None:
        self.default = default
        self._make = make
        self._root = root
        self._budget = budget
        self._telemetry = telemetry
        self._others: dict[str, M] = {}
        self._leaving: set[str] = set()
        self._loading = asyncio.Lock()
        self._tasks: set[asyncio.Task[M]] = set()
        self._port = 0

    def __iter__(self) -> Iterator[M]:
        yield self.default
        yield from self._others.values()

    def started(self, port: int) -> None:
        """Count the default model, now that it is there."""
        self._port = port
        self._count(self.default)

    def named(self, name: str) -> M:
        """Return the model of this name, for the empty name the default one.

        Raises:
            NotFoundError: MODEL_NOT_FOUND.
        """
        if name in ("", self.default.name):
            return self.default
        if name in self._leaving or name not in self._others:
            known = ", ".join(repr(model.name) for model in self)
            raise NotFoundError(
                f"model: must be one that is loaded ({known}), got {shown(name)}",
                reason="MODEL_NOT_FOUND",
            )
        return self._others[name]

    def available(self) -> list[str]:
        """Names that could be loaded."""
        if self._root is None or not self._root.is_dir():
            return []
        loaded = {model.name for model in self}
        folders = (path for path in self._root.iterdir() if (path / "config.json").is_file())
        return sorted(path.name for path in folders if path.name not in loaded)

    async def load(self, name: str) -> M:
        """Load a model.

        Raises:
            InvalidArgumentError: BAD_MODEL_NAME, it is no bare name.
            NotFoundError: MODEL_NOT_FOUND, there is no such folder.
            AlreadyExistsError: MODEL_LOADED.
            ResourceExhaustedError: MODELS_OVER_BUDGET.
            FailedPreconditionError: MODEL_UNUSABLE; the message says why.
        """
        folder = self._folder(name)
        task = asyncio.create_task(self._loaded(name, folder))
        self._tasks.add(task)  # it goes on though nobody may wait for it any more
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _loaded(self, name: str, folder: Path) -> M:
        async with self._loading:
            if any(model.name == name for model in self):
                raise AlreadyExistsError(f"name: {name!r} is loaded already", reason="MODEL_LOADED")
            model = self._make(folder, Room(name, self._admit))
            try:
                await model.start(self._port)
            except ConfigurationError as error:
                raise FailedPreconditionError(
                    f"name: {' '.join(str(error).split())}", reason="MODEL_UNUSABLE"
                ) from error
            self._others[name] = model
        self._count(model)
        log(_logger, logging.INFO, "model loaded", model=name, bytes=model.info().weight_bytes)
        return model

    async def unload(self, name: str) -> int:
        """Unload a model once nothing uses it; return the bytes freed.

        New work is refused from now on. A caller who does not wait leaves it loaded.

        Raises:
            NotFoundError: MODEL_NOT_FOUND.
            FailedPreconditionError: DEFAULT_MODEL, which stays.
        """
        model = self.named(name)
        if model is self.default:
            raise FailedPreconditionError(
                f"name: must not be the default model, got {shown(name)}", reason="DEFAULT_MODEL"
            )
        self._leaving.add(name)
        try:
            while model.in_use:  # noqa: ASYNC110 - what uses it ends in many places
                await asyncio.sleep(_POLL_SECONDS)
            del self._others[name]
        finally:
            self._leaving.discard(name)
        freed = model.info().weight_bytes
        self._uncount(model)
        await model.close()
        log(_logger, logging.INFO, "model unloaded", model=name, bytes=freed)
        return freed

    async def close_others(self) -> None:
        """Close all but the default model."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._others:
            _, model = self._others.popitem()
            await model.close()

    def _folder(self, name: str) -> Path:
        """Return a model's folder, which must be in ours."""
        if not name or Path(name).name != name or name in (".", ".."):
            raise InvalidArgumentError.of(
                "name", "must be a bare name, no path", name, reason="BAD_MODEL_NAME"
            )
        root = self._root
        folder = root.resolve() / name if root is not None else None
        if folder is None or not (folder / "config.json").is_file():
            raise NotFoundError(
                f"name: must be a folder of the models' folder, got {shown(name)}",
                reason="MODEL_NOT_FOUND",
            )
        if folder.resolve() != folder:
            raise InvalidArgumentError.of(
                "name", "must not be a link", name, reason="BAD_MODEL_NAME"
            )
        return folder

    def _admit(self, size: int) -> None:
        used = sum(model.info().weight_bytes for model in self)
        if used + size > self._budget:
            raise ResourceExhaustedError(
                f"models_bytes: of {self._budget} bytes {used} are used, and {size} more are"
                " needed; unload another model first",
                reason="MODELS_OVER_BUDGET",
            )

    def _count(self, model: Member) -> None:
        info = model.info()
        self._telemetry.info.labels(*self._labels(model)).set(1)
        self._telemetry.model_bytes.labels(info.name).set(info.weight_bytes)
        self._telemetry.model_requests.labels(info.name)

    def _uncount(self, model: Member) -> None:
        self._telemetry.info.remove(*self._labels(model))
        with contextlib.suppress(KeyError):
            self._telemetry.model_bytes.remove(model.name)

    @staticmethod
    def _labels(model: Member) -> tuple[str, ...]:
        info = model.info()
        return info.name, info.precision, info.fingerprint.numerics, info.server_version
