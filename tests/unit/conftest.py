"""A client and the servers it talks to, whose answers tests choose."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from splitformer_client import fan, retry
from tests.support.client_world import World, new_world


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A client of servers of fakes, which tries again at once."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(fan, "ANSWER_SECONDS", 20.0)  # however slow the machine
    async with new_world() as made:
        yield made
