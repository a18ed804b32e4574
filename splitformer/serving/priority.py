"""What priority a service has: its place, its niceness, and its session's.

Linux divides a core among *sessions* first (`autogroup` in sched(7)), and only then, by niceness
and policy, among the threads of each: see `docs/decisions/0037-an-encoder-that-gives-way.md`.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from splitformer.errors import ConfigurationError

POLICIES = ("usual", "idle")
_AUTOGROUP = Path("/proc/self/autogroup")
_CHANGE_SECONDS = 0.1
"""Linux lets a process without privileges change its session's niceness this often."""


def check_policy(policy: str) -> None:
    """ConfigurationError unless it is one of `POLICIES`."""
    if policy not in POLICIES:
        raise ConfigurationError(f"policy: must be one of {', '.join(POLICIES)}, got {policy!r}")


def take_place(cores: frozenset[int], nice: int) -> None:
    """Move this process, and what it starts from now on, to its cores and its niceness.

    Niceness is added to what the process was started with.

    Raises:
        ConfigurationError: The system does not allow it.
    """
    try:
        if cores:
            os.sched_setaffinity(0, cores)
        os.nice(nice)
    except (OSError, AttributeError) as error:
        raise ConfigurationError(f"nice: {nice} is not possible here: {error}") from error


def give_way(policy: str) -> None:
    """Let this process, once it has started, take the priority that it serves with.

    Before, it would take for ever on a busy machine.
    """
    session().serve(waited_for=False)
    if policy == "idle":
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))


class Session:
    """The niceness of this process's session, which is ours to set if we lead it."""

    def __init__(self) -> None:
        self._ours = os.getsid(0) == os.getpid()
        self._niceness = 0
        self._next = -float("inf")

    def become(self, niceness: int) -> None:
        """Give the session a niceness; nothing happens too soon after another change.

        So it is to be called whenever work begins, with what that work is to have.
        """
        now = time.monotonic()
        if self._ours and niceness != self._niceness and now >= self._next:
            self._next = now + _CHANGE_SECONDS
            with suppress(OSError):  # a kernel without such groups, or one that says: too soon
                _AUTOGROUP.write_text(str(niceness))
                self._niceness = niceness

    def serve(self, waited_for: bool) -> None:
        """Give way to others as far as this process's niceness says, unless work is waited for."""
        self.become(0 if waited_for else os.nice(0))


@cache
def session() -> Session:
    """Return this process's session."""
    return Session()
