"""Interleaved timing, and results as lines and JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

J = TypeVar("J")
W = TypeVar("W")

PAUSE = 0.25
"""Seconds before a turn. Torch's threads spin for some 9 ms once they are idle, and those of other
OpenMP libraries may for 0.2 s: they would take cores from whoever comes next."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds of one contestant, over the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Slowest over fastest round."""
        return max(self.seconds) / min(self.seconds)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something to time.

    Attributes:
        run: What is timed.
        warm: Runs untimed right before: what the contestant before left behind (its weights in the
            caches) would otherwise count against this one.
    """

    run: Callable[[], object]
    warm: Callable[[], object]


def interleaved(
    contestants: Mapping[str, Contestant], rounds: int, most_seconds: float = math.inf
) -> dict[str, Sample]:
    """Time all contestants in turn, round by round.

    Args:
        contestants: What to run, by name.
        rounds: How often each is timed, at most.
        most_seconds: No round is begun, but the first, that would likely end later than this.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    began = time.perf_counter()
    for done in range(rounds):
        spent = time.perf_counter() - began
        if done and spent * (done + 1) / done > most_seconds:
            break
        for name, contestant in contestants.items():
            time.sleep(PAUSE)
            contestant.warm()
            started = time.perf_counter()
            contestant.run()
            seconds[name].append(time.perf_counter() - started)
    return {name: Sample(tuple(taken)) for name, taken in seconds.items()}


def in_turns(
    jobs: Sequence[J], ways: Sequence[W], rounds: int, run: Callable[[J, W], float]
) -> dict[W, float]:
    """Do short jobs in several ways, in turns left to chance; of each the fastest round counts.

    So a machine whose speed changes within a second is as fast for one way as for the others.

    Args:
        jobs: What to do.
        ways: How to do it.
        rounds: How often.
        run: Does a job in a way, and returns the seconds it took.

    Returns:
        Seconds for all jobs, by way.
    """
    chance = random.Random(0)
    seconds = [dict.fromkeys(ways, math.inf) for _ in jobs]
    for _ in range(rounds):
        for job, fastest_of in zip(jobs, seconds, strict=True):
            for way in chance.sample(ways, len(ways)):
                fastest_of[way] = min(fastest_of[way], run(job, way))
    return {way: sum(each[way] for each in seconds) for way in ways}


def fastest(contestants: Mapping[str, Callable[[], object]]) -> str:
    """Return the name of the one that is fastest in one try, after one that does not count."""
    seconds = {}
    for name, run in contestants.items():
        run()
        began = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - began
    return min(seconds, key=lambda name: seconds[name])


@dataclass(slots=True)
class Report:
    """Figures by name, printed as they come and kept as JSON.

    Attributes:
        scenario: What is measured.
        quick: With the most important sizes only, and few rounds.
        only: Beginnings of the figures that are wanted; empty: all are.
        figures: Values by name.
        details: The timings that figures were made of.
    """

    scenario: str
    quick: bool = False
    only: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def wants(self, part: str) -> bool:
        """True if any of the figures whose names begin so is wanted."""
        return not self.only or any(part.startswith(o) or o.startswith(part) for o in self.only)

    def figure(self, name: str, value: float) -> None:
        """Add and print a figure."""
        self.figures[name] = value
        plain = f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"
        print(f"{name} {plain}", flush=True)

    def detail(self, name: str, samples: Mapping[str, Sample]) -> None:
        """Keep the timings that a figure was made of."""
        self.details[name] = {
            key: {"median_s": s.median, "spread": s.spread, "rounds_s": list(s.seconds)}
            for key, s in samples.items()
        }

    def write(self, path: Path) -> None:
        """Write everything with facts about the machine.

        If only a part was wanted, what the file holds of the same machine stays beside it.
        """
        facts = machine()
        others = json.loads(path.read_text()) if self.only and path.exists() else {}
        same = others.get("machine") == facts
        figures = {**(others["figures"] if same else {}), **self.figures}
        details = {**(others["details"] if same else {}), **self.details}
        content = {
            "scenario": self.scenario,
            "quick": self.quick,
            "machine": facts,
            "figures": figures,
            "details": details,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Return what a reader needs to place the figures."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = {line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line}
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    interesting = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "cpu": sorted(models),
        "cores": os.cpu_count(),
        "features": [flag for flag in interesting if flag in flags],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
