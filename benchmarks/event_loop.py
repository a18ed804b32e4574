"""The event loop of clients and of peers' servers: the one that our services use."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from splitformer.serving.process import loop_factory

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, as `asyncio.run` does."""
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        return runner.run(main)
