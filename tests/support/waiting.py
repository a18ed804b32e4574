"""Waiting for what must come true, and a clock that tests set themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Clock:
    """Seconds that pass only when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def comes_true(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = asyncio.get_running_loop().time() + 20
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it never came true"
        await asyncio.sleep(0.005)
