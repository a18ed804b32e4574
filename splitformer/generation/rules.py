"""What the filters make of the likeliest tokens of one position, without looking at all of them.

A filter rules tokens out or makes them less likely. If it can do so to n tokens, then the k
likeliest that are left are among the k + n likeliest before. So most of the time a few candidates
do; where they do not, the whole row is asked for. Both ways give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from splitformer.generation.filters import Row, completing, likeliest, penalise, suppress
from splitformer.generation.options import GenerationOptions
from splitformer.model.stepping import Advanced

if TYPE_CHECKING:
    from splitformer.generation.decoding import Request, Vocabulary

MOST_CANDIDATES = 64
"""Beyond so many, ranking costs more than handing over the row."""


class Ranking(NamedTuple):
    """The tokens that may come next, likeliest first.

    Attributes:
        ids: Token ids.
        values: Their log-probabilities, or logits, after filters.
        before: The same before filters.
    """

    ids: list[int]
    values: list[float]
    before: list[float]


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds at one position of one sequence.

    Attributes:
        banned: Ids that are ruled out.
        penalised: Ids that the repetition penalty applies to.
        penalty: The repetition penalty.
        end_denied: The end token is ruled out.
        end_due: Only the end token may come.
        vocabulary: The model's.
    """

    banned: frozenset[int]
    penalised: frozenset[int]
    penalty: float
    end_denied: bool
    end_due: bool
    vocabulary: Vocabulary

    @property
    def shaping(self) -> bool:
        """True if they change which tokens are likeliest, the end token aside."""
        return bool(self.banned or self.penalised or self.end_due)

    @staticmethod
    def at(
        options: GenerationOptions,
        vocabulary: Vocabulary,
        seen: Sequence[int],
        produced: int,
        last: bool = False,
    ) -> Rules:
        """Return what the options say of the next position.

        Args:
            options: How to choose.
            vocabulary: The model's.
            seen: The decoder's input so far; empty if the options do not look at it.
            produced: How many tokens have been produced.
            last: There is no room for another token behind the next one.
        """
        penalty, size = options.repetition_penalty or 1.0, options.no_repeat_ngram_size
        banned = completing(seen, size) if size else []
        return Rules(
            frozenset((*banned, *options.suppressed_tokens)),
            frozenset(seen) if penalty != 1 else frozenset(),
            penalty,
            produced < options.min_new_tokens,
            last and vocabulary.end_at_limit,
            vocabulary,
        )

    def ask(self, request: Request, output: int, count: int, row: bool = False) -> None:
        """Ask for what `rank` needs to know.

        Args:
            request: The step's.
            output: Which output.
            count: How many tokens are to be ranked; 0: none.
            row: Ask for the whole row in any case.
        """
        if self.end_denied:
            request.denied[output] = self.vocabulary.eos_id
        if self.end_due:
            request.given[output] = self.vocabulary.eos_id
            return
        wanted = self._wanted(count)
        if wanted:
            request.candidates[output] = wanted
        if row or not wanted:
            request.logits.add(output)

    def rank(self, answer: Advanced, output: int, count: int, normalised: bool = True) -> Ranking:
        """Return the likeliest tokens; if none is left, the end.

        Args:
            answer: The step's.
            output: Which output.
            count: How many, as in `ask`; fewer if there are no more, more if others asked for them.
            normalised: Filters see log-probabilities, as in beam search; else they see logits.
        """
        shift = answer.log_sums[output] if normalised else 0.0
        if self.end_due:
            return Ranking([self.vocabulary.eos_id], [0.0], [answer.given[output] - shift])
        if not self._wanted(count):
            return self.rank_row(answer.logits[output].astype(np.float64) - shift, count)
        found = answer.candidates[output]
        if not self.shaping:
            if not normalised:
                return Ranking(found.ids, found.logits, found.logits)
            values = [logit - shift for logit in found.logits]
            return Ranking(found.ids, values, values)
        ranked = [
            (-self.after_penalty(token, logit - shift), token, logit - shift)
            for token, logit in zip(found.ids, found.logits, strict=True)
            if token not in self.banned
        ]
        ranked = [min(ranked)] if count == 1 and ranked else sorted(ranked)
        return Ranking(
            [token for _, token, _ in ranked[:count]],
            [-value for value, _, _ in ranked[:count]],
            [before for _, _, before in ranked[:count]],
        )

    def filtered(self, row: Row) -> Row:
        """Apply all filters to a whole row: (V,) -> (V,)."""
        if self.penalised:
            row = penalise(row, list(self.penalised), self.penalty)
        end = [self.vocabulary.eos_id] if self.end_denied else []
        return suppress(row, [*self.vocabulary.never, *self.banned, *end])

    def after_penalty(self, token: int, value: float) -> float:
        """Apply the repetition penalty to a token's value."""
        if token not in self.penalised:
            return value
        return value * self.penalty if value < 0 else value / self.penalty

    def _wanted(self, count: int) -> int:
        """How many candidates are enough to rank `count` tokens; 0: only the whole row is."""
        if not (self.banned or self.penalised):
            return count  # most often
        wanted = count + len(self.banned) + len(self.penalised)
        left = not self.banned or wanted + len(self.vocabulary.never) < self.vocabulary.size
        few = count > 0 and wanted <= max(count, MOST_CANDIDATES)
        return wanted if few and left and self.penalty >= 1 else 0

    def rank_row(
        self, row: Row, count: int, further: Callable[[Row], Row] | None = None
    ) -> Ranking:
        """Rank a whole row (V,); `further` rules out more of what filters have left."""
        left = self.filtered(row) if further is None else further(self.filtered(row))
        best, end = likeliest(left, count), self.vocabulary.eos_id
        if not best.ids:
            return Ranking([end], [float(row[end])], [float(row[end])])
        return Ranking(best.ids, best.logits, row[best.ids].tolist())
