"""A client with servers whose answers tests choose, and a clock that tests set."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from splitformer_client import fan, retry
from tests.support.client_world import World, new_world
from tests.support.waiting import Clock


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A client of servers of fakes, which tries again at once."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(fan, "ANSWER_SECONDS", 20.0)  # however slow the machine
    async with new_world() as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    """Seconds that pass only when a test says so."""
    return Clock()


@pytest.fixture
def ends() -> list[str]:
    """How what is kept has ended, in order."""
    return []
