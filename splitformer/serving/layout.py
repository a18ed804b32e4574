"""Which cores, how many threads and what priority the two services get on one machine.

Decoding is a chain of short steps that streams wait for; encoding is a few long ones. Where both
want the same core, a step waits for the scheduler. So the default gives the threads that compute
cores of their own, and keeps the encoder to its half. What else the decoder does, messages above
all, goes where there is room, and the encoder's bulk jobs give way to it: see
`docs/decisions/0030-two-cores-at-work.md` and `0037-an-encoder-that-gives-way.md`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from splitformer.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Place:
    """Where one service runs.

    Attributes:
        cores: That it may use; empty: all.
        engine_cores: For the threads that compute, one for each; empty: any.
        threads: For the arithmetic.
        nice: 0 is usual; more yields to others.
        policy: One of `priority.POLICIES`; "idle" gives way at once to whatever else wants a core.
    """

    cores: tuple[int, ...] = ()
    engine_cores: tuple[int, ...] = ()
    threads: int = 1
    nice: int = 0
    policy: str = "usual"

    def flags(self, prefix: str, environment: Mapping[str, str]) -> list[str]:
        """Return the service's flags, but for those that the environment settles."""
        values = {
            "cores": _listed(self.cores),
            "engine_cores": _listed(self.engine_cores),
            "threads": str(self.threads),
            "nice": str(self.nice),
            "policy": self.policy,
        }
        missing = (name for name in values if f"{prefix}{name.upper()}" not in environment)
        return [part for name in missing for part in (f"--{name.replace('_', '-')}", values[name])]

    def __str__(self) -> str:
        cores = f"cores {_listed(self.cores)}" if self.cores else "all cores"
        engine = f", engine cores {_listed(self.engine_cores)}" if self.engine_cores else ""
        policy = "" if self.policy == "usual" else f", policy {self.policy}"
        return f"{cores}{engine}, threads {self.threads}, nice {self.nice}{policy}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of both services on one machine."""

    encoder: Place
    decoder: Place

    @classmethod
    def default(cls, cores: Sequence[int] | None = None) -> Self:
        """Divide cores, by default all that this process may use: half for each engine."""
        given = tuple(sorted(os.sched_getaffinity(0) if cores is None else cores))
        if len(given) < 2:
            return cls(Place(nice=_SHARING), Place())
        half = (len(given) + 1) // 2
        decoder, encoder = given[:half], given[half:]
        return cls(
            Place(encoder, encoder, len(encoder), _YIELDING, "idle"),
            Place(engine_cores=decoder, threads=len(decoder)),
        )

    @property
    def line(self) -> str:
        """Say it in one line."""
        return f"layout: encoder {self.encoder}; decoder {self.decoder}"


_YIELDING = 15
"""Niceness of an encoder that has cores: clients and others on them go before its bulk jobs."""

_SHARING = 5
"""Niceness of an encoder on the one core that there is: it gets a quarter of it."""


def cores_of(text: str, name: str = "cores") -> frozenset[int]:
    """Read core numbers such as `0-3,6`; empty text is none.

    Args:
        text: The numbers.
        name: Of the setting that they are.

    Raises:
        ConfigurationError: It is no such list, or names a core that this process may not use.
    """
    cores: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigurationError(f"{name}: must be numbers and ranges like 0-3,6, got {text!r}")
        cores.update(range(int(first), int(last or first) + 1))
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else frozenset(cores)
    if not cores <= allowed:
        raise ConfigurationError(
            f"{name}: must be among {','.join(map(str, sorted(allowed)))}, got {text!r}"
        )
    return frozenset(cores)


def pin_engine(cores: Sequence[int], threads: int) -> None:
    """Move the calling thread, the first of an engine's, to its core.

    Args:
        cores: Of the engine; empty: the thread stays where it may be. The second is for the second
            thread, and so on; what is left belongs to the first.
        threads: Of the engine.
    """
    own = set(cores) - set(cores[1:threads])
    if own and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, own)


def _listed(cores: Sequence[int]) -> str:
    return ",".join(map(str, cores))
