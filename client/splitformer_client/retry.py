"""Trying again, with growing pauses, as long as the deadline allows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from splitformer.errors import UnavailableError
from splitformer_client.scope import Scope

T = TypeVar("T")

FIRST_PAUSE = 0.1
"""Seconds before the second attempt, on average; doubles from one attempt to the next."""


async def while_unavailable(attempt: Callable[[], Awaitable[T]], attempts: int, scope: Scope) -> T:
    """Run `attempt` until it is answered.

    Args:
        attempt: Starts one attempt.
        attempts: Most attempts.
        scope: Its deadline is never overrun: the last error is raised at once instead.

    Raises:
        UnavailableError: The service stayed unavailable.
    """
    for number in range(attempts):
        try:
            return await attempt()
        except UnavailableError as error:
            pause = max(_pause(number), error.retry_after or 0.0)
            if number + 1 == attempts or pause >= scope.left():
                raise
        await asyncio.sleep(pause)
    raise AssertionError("attempts is at least 1")


def _pause(number: int) -> float:
    """Return between half and one and a half times the pause after attempt `number`."""
    return FIRST_PAUSE * float(2**number) * random.uniform(0.5, 1.5)
