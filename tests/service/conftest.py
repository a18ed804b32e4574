"""Callers on the shared services; each test must leave them as it found them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import Services
from tests.support.rpc import Caller


@pytest.fixture(scope="session")
def shared_caller(services: Services) -> Iterator[Caller]:
    """Stubs of the shared services."""
    caller = Caller(services.encoder, services.decoder)
    yield caller
    caller.close()


@pytest.fixture
def caller(shared_caller: Caller) -> Iterator[Caller]:
    """Stubs of the shared services; afterwards nothing may be left behind and both must work."""
    with shared_caller.nothing_left_behind():
        yield shared_caller
