"""Draws from the likeliest tokens, for all sequences of a step together.

Every operation works row by row, so that what is drawn for a sequence is the same bits whoever else
draws beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import Ranking, Rules
from splitformer.generation.selectors import needs_row, temperature_of, uniform, weight_of_all
from splitformer.model.stepping import Advanced

Values = NDArray[np.float64]
Counts = NDArray[np.intp]
Flags = NDArray[np.bool_]

_NO_ID = np.iinfo(np.int64).max


class Sampler(NamedTuple):
    """How to draw, in numbers; what is not given is not a number, which compares as False."""

    temperature: float
    top_k: float
    top_p: float
    min_p: float

    @staticmethod
    def of(options: GenerationOptions) -> Sampler:
        """Return what options say of draws."""
        given = (options.top_k, options.top_p, options.min_p)
        return Sampler(temperature_of(options), *(np.nan if v is None else v for v in given))


class Draw(NamedTuple):
    """A token to be drawn.

    Attributes:
        ranking: The likeliest tokens, likeliest first, of equals the smallest; at least one.
        sampler: How.
        point: The number that belongs to seed and position.
        total: Weight of all tokens, relative to the likeliest; if `needs_row`.
    """

    ranking: Ranking
    sampler: Sampler
    point: float
    total: float = np.nan


class Drawn(NamedTuple):
    """A token that was drawn, and its logit before filters."""

    id: int
    logit: float


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be drawn from the outputs of one sequence.

    Attributes:
        options: What the caller asked for.
        sampler: The same, for draws.
        count: How many of the likeliest tokens are asked for.
        row: It matters how likely all others are together.
    """

    options: GenerationOptions
    sampler: Sampler
    count: int
    row: bool

    @staticmethod
    def of(options: GenerationOptions, count: int) -> Wish:
        """Return what options wish for."""
        return Wish(options, Sampler.of(options), count, needs_row(options))


@dataclass(slots=True)
class Draws:
    """The draws of one step, all made when the first is asked for."""

    _wishes: dict[int, tuple[Wish, Rules, int]] = field(default_factory=dict)
    _drawn: dict[int, Drawn | None] = field(default_factory=dict)

    def add(self, output: int, wish: Wish, rules: Rules, position: int) -> None:
        """Want a draw from an output, where some rules hold, for a position of the target."""
        self._wishes[output] = wish, rules, position

    def at(self, output: int, answer: Advanced) -> Drawn | None:
        """Return the draw from an output; None if tokens that were not asked for may matter."""
        if not self._drawn:
            draws = [_draw(i, *wished, answer) for i, wished in self._wishes.items()]
            self._drawn = dict(zip(self._wishes, drawn(draws), strict=True))
        return self._drawn[output]


def _draw(output: int, wish: Wish, rules: Rules, position: int, answer: Advanced) -> Draw:
    options, total = wish.options, np.nan
    if rules.shaping or not answer.candidates:
        ranking = rules.rank(answer, output, wish.count, normalised=False)
    else:
        found = answer.candidates[output]
        ranking = Ranking(found.ids, found.logits, found.logits)
    if wish.row:
        total = weight_of_all(rules.filtered(answer.logits[output]), options)
    return Draw(ranking, wish.sampler, uniform(options.seed or 0, position), total)


def drawn(draws: Sequence[Draw]) -> list[Drawn | None]:
    """Make draws as `select` does from whole rows.

    Returns:
        What was drawn; None where tokens that are not among the likeliest may matter.
    """
    rows, held = np.arange(len(draws)), np.array([len(draw.ranking.ids) for draw in draws])
    values = _stacked([draw.ranking.values for draw in draws], held, -np.inf)
    before = _stacked([draw.ranking.before for draw in draws], held, 0.0)
    ids = _stacked([draw.ranking.ids for draw in draws], held, 0, np.int64)
    samplers = np.array([draw.sampler for draw in draws])
    if (samplers[:, 2] < 1).any():
        _put_equals_in_order(draws, values, before, ids)
    weights = np.exp((values - values[:, :1]) / samplers[:, :1])
    totals = np.array([draw.total for draw in draws])
    kept = _kept(samplers, totals, values, weights, held)
    places = _places(ids, weights, kept, np.array([draw.point for draw in draws]))
    tokens, logits = ids[rows, places].tolist(), before[rows, places].tolist()
    return [
        Drawn(token, logit) if count else None
        for token, logit, count in zip(tokens, logits, kept.tolist(), strict=True)
    ]


def _stacked(some: Sequence[Any], held: Counts, otherwise: float, kind: Any = np.float64) -> Any:
    """Put sequences of different lengths below each other, with something behind the short ones."""
    if (held == held[0]).all():
        return np.array(some, kind)
    stacked = np.full((len(some), int(held.max())), otherwise, kind)
    for row, values in zip(stacked, some, strict=True):
        row[: len(values)] = values
    return stacked


def _put_equals_in_order(draws: Sequence[Draw], values: Values, before: Values, ids: Any) -> None:
    """Where a nucleus is looked for, put equals into Transformers' order: the largest id first."""
    equal = ((values[:, 1:] == values[:, :-1]) & np.isfinite(values[:, 1:])).any(-1)
    for i in equal.nonzero()[0].tolist():
        if draws[i].sampler.top_p >= 0:
            order = np.lexsort((-ids[i], -values[i]))
            values[i], before[i], ids[i] = values[i][order], before[i][order], ids[i][order]


def _kept(
    samplers: Values, totals: Values, values: Values, weights: Values, held: Counts
) -> Counts:
    """How many of the likeliest tokens may be drawn; 0 if more than there are here may.

    Args:
        samplers: (n, 4), each a `Sampler`.
        totals: (n), weights of all tokens.
        values: (n, K), in order; minus infinity behind those that are held.
        weights: (n, K), relative to the first.
        held: (n), how many tokens are known.
    """
    rows, (_, top_k, top_p, min_p) = np.arange(len(held)), samplers.T
    least = values[rows, held - 1]
    count, known = _first(top_k, values, held, least)
    unknown = (top_k > 0) & ~known
    if (top_p < 1).any():
        sums = weights.cumsum(-1)
        total = np.where(known, sums[rows, count - 1], totals)
        enough = (sums < (top_p * total)[:, None]).sum(-1) + 1
        fits = (top_p < 1) & (enough <= count)
        fits &= known | (values[rows, np.minimum(enough, held) - 1] > least)
        count, known = np.where(fits, enough, count), known | fits
    if (min_p >= 0).any():
        enough = np.minimum((weights >= min_p[:, None]).sum(-1), count)
        fits = (min_p >= 0) & (known | (enough < held))
        count, known = np.where(fits, enough, count), known | fits
    return np.where(known & ~unknown, count, 0)


def _first(wanted: Values, values: Values, held: Counts, least: Values) -> tuple[Counts, Flags]:
    """How many are as likely as the k-th or likelier, and whether that is known; else all.

    Where no k is given, or it cannot be known, the second is False.
    """
    here = wanted < held
    if not here.any():
        return held, here
    kth = values[np.arange(len(held)), np.where(here, wanted, 1).astype(np.intp) - 1]
    known = here & (least != kth)
    return np.where(known, (values >= kth[:, None]).sum(-1), held), known


def _places(ids: Any, weights: Values, kept: Counts, points: Values) -> Counts:
    """Go through the tokens that may be drawn by their ids, as far as the points say."""
    rows = np.arange(len(kept))
    among = np.arange(ids.shape[1]) < kept[:, None]
    by_id = np.where(among, ids, _NO_ID).argsort(-1)
    sums = np.where(among, weights, 0.0)[rows[:, None], by_id].cumsum(-1)
    gone = (sums <= (points * sums[:, -1])[:, None]).sum(-1)
    place: Counts = by_id[rows, np.maximum(np.minimum(gone, kept - 1), 0)]
    return place
