"""How a service's process is set up so that its two busy threads do not wait for each other.

The event loop's thread and the engine's take turns with Python's one lock. What it costs to do this
badly, and what each setting here brought, is in `docs/decisions/0008-the-path-of-a-token.md`.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.util
import sys
from collections.abc import Callable

from splitformer.errors import ConfigurationError

EVENT_LOOPS = ("auto", "asyncio", "uvloop")

_SWITCH_SECONDS = 0.00005
"""An engine that is back from a step waits no longer than this for the event loop's thread."""

_COLLECTION_THRESHOLDS = (10_000, 50, 100)
"""Objects of ours die by reference count; cycles are rare, and looking for them stops a step."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def check_event_loop(choice: str) -> None:
    """ConfigurationError unless `choice` is an event loop that can be used here."""
    if choice not in EVENT_LOOPS:
        raise ConfigurationError(
            f"event_loop: must be one of {', '.join(EVENT_LOOPS)}, got {choice!r}"
        )
    if choice == "uvloop" and not _installed():
        raise ConfigurationError("event_loop: uvloop is not installed")


def loop_factory(choice: str) -> LoopFactory:
    """Return what makes the event loop: uvloop's if asked for, or with "auto" if installed."""
    check_event_loop(choice)
    if choice == "asyncio" or not _installed():
        return asyncio.new_event_loop
    factory: LoopFactory = importlib.import_module("uvloop").new_event_loop
    return factory


def settle() -> None:
    """Let threads switch often, and make garbage collections rare and quick.

    To be called once all that lasts has been loaded: collections leave that alone from then on.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(*_COLLECTION_THRESHOLDS)


def _installed() -> bool:
    return importlib.util.find_spec("uvloop") is not None
