"""Timing in turns, and ratios of what was timed beside each other."""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.processes import others_cpu

J = TypeVar("J")
W = TypeVar("W")

Run = Callable[[], object]
Pieces = tuple[float, ...]
"""Seconds of the pieces of a turn."""

QUIET = 0.1
"""Most of a core that other processes may use during a turn that counts."""

LOOK, LONGEST_SPIN = 0.004, 0.3
"""Seconds between two looks at whether threads spin on, and until nobody looks any more."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one contestant took.

    Attributes:
        rounds: Seconds of every piece of every turn.
    """

    rounds: tuple[Pieces, ...]

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Sample:
        """Turns of one piece each."""
        return cls(tuple((each,) for each in seconds))

    @property
    def seconds(self) -> tuple[float, ...]:
        """Of every turn."""
        return tuple(map(sum, self.rounds))

    @property
    def whole(self) -> Sample:
        """Its turns as one piece each, to be compared with turns of other pieces."""
        return Sample.of(self.seconds)

    @property
    def median(self) -> float:
        """The middle turn."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Slowest over fastest turn."""
        return max(self.seconds) / min(self.seconds)

    @property
    def first_less_second(self) -> Sample:
        """Of turns of two pieces: the first, less the second, which is a part of it."""
        return Sample.of(first - second for first, second in self.rounds)


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something to time.

    Attributes:
        begin: Begins a turn, untimed, and returns its pieces, which are timed. It warms up: what
            the contestant before left behind (its weights in the caches) would otherwise count
            against this one.
        spins: Its threads wait for more to do, and take cores from whoever comes next.
    """

    begin: Callable[[], Sequence[Run]]
    spins: bool = False

    @classmethod
    def whole(cls, run: Run, warm: Run, spins: bool = False) -> Contestant:
        """One piece, and what runs untimed right before it."""

        def begin() -> list[Run]:
            warm()
            return [run]

        return cls(begin, spins)


Company = Mapping[str, Contestant]
"""Contestants that alternate piece by piece; all have as many pieces."""


@dataclass(frozen=True, slots=True)
class Match:
    """Contestants that are compared with each other.

    Attributes:
        companies: They take turns one after the other.
        turns: How often in a round.
    """

    companies: Sequence[Company]
    turns: int = 1

    @classmethod
    def apart(cls, contestants: Company, turns: int = 1) -> Match:
        """One whole turn after the other."""
        return cls([{name: each} for name, each in contestants.items()], turns)


def interleaved(
    matches: Mapping[str, Match], rounds: int, most_seconds: float = math.inf
) -> dict[str, dict[str, Sample]]:
    """Time all contestants in short turns, left to chance, round by round.

    The speed of a machine changes within a second and for seconds. So contestants whose ratio is
    asked for alternate in pieces of some ten milliseconds where they can, and the rounds of all
    matches together last as long as there is time: none of them has a bad moment for itself.

    Args:
        matches: Who is compared, by name.
        rounds: How often each is timed, at most.
        most_seconds: No round is begun, but the first, that would likely end later than this.

    Returns:
        What each contestant took, by match and name.
    """
    chance = random.Random(0)
    taken: dict[str, list[Turn]] = {name: [] for name in matches}
    began = time.perf_counter()
    for done in range(rounds):
        spent = time.perf_counter() - began
        if done and spent * (done + 1) / done > most_seconds:
            break
        for name, match in matches.items():
            taken[name] += [_turn(match, chance) for _ in range(match.turns)]
    return {name: _samples(counted(name, turns)) for name, turns in taken.items()}


@dataclass(frozen=True, slots=True)
class Turn:
    """What happened when all contestants of a match took a turn.

    Attributes:
        pieces: What each took.
        others: CPU seconds a second that went to other processes.
    """

    pieces: Mapping[str, Pieces]
    others: float


def quiet(turns: Sequence[Turn]) -> list[Turn]:
    """Leave out turns that other processes disturbed, as long as half of all are left."""
    least = sorted(turn.others for turn in turns)[(len(turns) - 1) // 2]
    return [turn for turn in turns if turn.others <= max(least, QUIET)]


def counted(name: str, turns: Sequence[Turn]) -> list[Turn]:
    """Return the turns that count; says so where the machine was too busy for them to mean much."""
    kept = quiet(turns)
    if (others := statistics.median(turn.others for turn in kept)) > QUIET:
        print(f"{name}: other processes took {others:.1f} cores meanwhile", file=sys.stderr)
    return kept


def _turn(match: Match, chance: random.Random) -> Turn:
    """Let each contestant of a match take a turn."""
    pieces: dict[str, Pieces] = {}
    began, others = time.perf_counter(), others_cpu()
    for company in chance.sample(match.companies, len(match.companies)):
        pieces |= _alternated(company, chance)
    return Turn(pieces, (others_cpu() - others) / (time.perf_counter() - began))


def _samples(turns: Sequence[Turn]) -> dict[str, Sample]:
    return {name: Sample(tuple(turn.pieces[name] for turn in turns)) for name in turns[0].pieces}


def _alternated(company: Company, chance: random.Random) -> dict[str, Pieces]:
    """Take one turn of each; return the seconds of their pieces."""
    pieces: dict[str, Sequence[Run]] = {}
    for name, contestant in company.items():
        pieces[name] = contestant.begin()
        if contestant.spins and len(company) > 1:
            come_to_rest()
    seconds: dict[str, list[float]] = {name: [] for name in company}
    for place in range(max(map(len, pieces.values()))):
        for name in chance.sample(list(company), len(company)):
            seconds[name].append(_seconds(pieces[name][place]))
            if company[name].spins:
                come_to_rest()
    return {name: tuple(each) for name, each in seconds.items()}


def come_to_rest() -> None:
    """Wait until no thread of this process spins: GNU's OpenMP does for 10 ms, others for 200."""
    for _ in range(round(LONGEST_SPIN / LOOK)):
        before = time.process_time()
        time.sleep(LOOK)
        if time.process_time() - before < LOOK / 10:
            return


def _seconds(run: Run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def times(ours: Sample, theirs: Sample) -> float:
    """How many times faster we are.

    Each piece is compared with the other's that was timed beside it; of each place in a turn the
    median of these ratios counts, by the share of our turn that the place has. A core that was lost
    for a moment, or a change of speed, changes few ratios, and medians do not see few.
    """
    total = weighed = 0.0
    for a, b in zip(zip(*ours.rounds, strict=True), zip(*theirs.rounds, strict=True), strict=True):
        usual = statistics.median(a)
        weighed += usual * statistics.median(y / x for x, y in zip(a, b, strict=True))
        total += usual
    return weighed / total


def in_turns(
    jobs: Sequence[J], ways: Sequence[W], rounds: int, run: Callable[[J, W], float]
) -> dict[W, Sample]:
    """Do short jobs in several ways, in turns left to chance, to be compared by `times`.

    Args:
        jobs: What to do.
        ways: How to do it.
        rounds: How often.
        run: Does a job in a way, and returns the seconds it took.

    Returns:
        What each way took: a round is a turn, and a job a piece of it.
    """
    chance = random.Random(0)
    seconds: dict[W, list[Pieces]] = {way: [] for way in ways}
    for _ in range(rounds):
        taken: dict[W, list[float]] = {way: [] for way in ways}
        for job in jobs:
            for way in chance.sample(ways, len(ways)):
                taken[way].append(run(job, way))
        for way in ways:
            seconds[way].append(tuple(taken[way]))
    return {way: Sample(tuple(turns)) for way, turns in seconds.items()}


def fastest(contestants: Mapping[str, Run], tries: int = 3) -> str:
    """Return the name of the one whose fastest try, in turns, is the fastest.

    A first try of each does not count, and after each try its threads come to rest.
    """
    seconds = dict.fromkeys(contestants, math.inf)
    for number in range(1 + tries):
        for name, run in contestants.items():
            taken = _seconds(run)
            come_to_rest()
            if number:
                seconds[name] = min(seconds[name], taken)
    return min(seconds, key=lambda name: seconds[name])
