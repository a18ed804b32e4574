"""What the filters make of the likeliest tokens of one position, without looking at all of them.

A filter rules tokens out or makes them less likely. If it can do so to n tokens, then the k
likeliest that are left are among the k + n likeliest before. So most of the time a few candidates
do; where they do not, the whole row is asked for. Both ways give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from splitformer.generation.filters import Row, biased, likeliest, penalise, suppress
from splitformer.generation.options import GenerationOptions
from splitformer.generation.seen import Seen
from splitformer.model.stepping import RULED_OUT, Advanced, Candidates
from splitformer.native import Question

if TYPE_CHECKING:
    from splitformer.generation.decoding import Vocabulary

MOST_CANDIDATES = 64
"""Beyond so many, ranking costs more than handing over the row."""

_NONE: frozenset[int] = frozenset()


class Ranking(NamedTuple):
    """The tokens that may come next, likeliest first.

    Attributes:
        ids: Token ids.
        values: Their log-probabilities, or logits, after filters.
        before: The same before filters.
        shift: What is still to be taken away from `values` and `before`.
    """

    ids: list[int]
    values: list[float]
    before: list[float]
    shift: float = 0.0


class Rules(NamedTuple):
    """What holds at one position of one sequence.

    Attributes:
        banned: Ids that are ruled out.
        penalised: Ids that the repetition penalty applies to.
        penalty: The repetition penalty.
        end_denied: The end token is ruled out.
        end_due: Only the end token may come.
        vocabulary: The model's.
        told: The likeliest tokens are told as the model has them: the step rules out none but the
            end token, and more of them are asked for.
        bias: What is added to the logits of some ids, before all else.
    """

    banned: frozenset[int]
    penalised: Set[int]
    penalty: float
    end_denied: bool
    end_due: bool
    vocabulary: Vocabulary
    told: bool = False
    bias: tuple[tuple[int, float], ...] = ()

    @property
    def shaping(self) -> bool:
        """True if they change which of the tokens that a step finds are likeliest."""
        return bool(self.penalised or self.bias or self.end_due or (self.told and self.banned))

    @property
    def exhausted(self) -> bool:
        """True if they rule out everything."""
        return bool(self.banned) and self.vocabulary.exhausted({*self.banned, *self.denied})

    @property
    def denied(self) -> tuple[int, ...]:
        """What the step rules out, ascending."""
        end = (self.vocabulary.eos_id,) if self.end_denied else ()
        return tuple(sorted({*end, *self.banned})) if self.banned and not self.told else end

    @staticmethod
    def at(
        options: GenerationOptions,
        vocabulary: Vocabulary,
        seen: Seen | None,
        produced: int,
        last: bool = False,
    ) -> Rules:
        """Return what the options say of the next position.

        Args:
            options: How to choose.
            vocabulary: The model's.
            seen: The decoder's input so far; None if the options do not look at it.
            produced: How many tokens have been produced.
            last: There is no room for another token behind the next one.
        """
        return Rules(
            (_NONE if seen is None else seen.completing).union(options.suppressed_tokens),
            _NONE if seen is None or not options.penalises else seen.ids,
            options.repetition_penalty or 1.0,
            produced < options.min_new_tokens,
            last and vocabulary.end_at_limit,
            vocabulary,
            bool(options.alternatives),
            options.logit_bias,
        )

    def question(
        self,
        count: int,
        row: bool = False,
        hope: int | None = None,
        told: int = 0,
        attention: bool = False,
        known: Question | None = None,
    ) -> Question:
        """Return what `rank` needs to know.

        Args:
            count: How many tokens are to be ranked; 0: none.
            row: Ask for the whole row in any case.
            hope: Most candidates to ask for beyond `count`: `first` may find that they do not do.
            told: Candidates to ask for at least.
            attention: Ask for the attention too.
            known: What may be asked once more if it is the same.
        """
        given = -1
        if self.end_due:
            given = self.vocabulary.eos_id
        else:
            wanted = self._wanted(count, hope)
            told, row = max(told, min(wanted, self.vocabulary.size or wanted)), row or not wanted
        asked = self.denied, told, row, given, attention
        return known if known is not None and known.asks(*asked) else Question(*asked)

    def rank(self, answer: Advanced, output: int, count: int, normalised: bool = True) -> Ranking:
        """Return the likeliest tokens; if none is left, the end.

        Args:
            answer: The step's.
            output: Which output.
            count: How many, as in `question`; fewer if there are no more, more if more were found.
            normalised: Filters see log-probabilities, as in beam search; else they see logits.
        """
        shift = answer.log_sums[output] if normalised else 0.0
        if self.end_due:
            return Ranking([self.vocabulary.eos_id], [0.0], [answer.given[output] - shift])
        if not self._wanted(count):
            return self.rank_row(answer.logits[output].astype(np.float64) - shift, count)
        found = answer.candidates[output]
        if not self.shaping:
            return Ranking(found.ids, found.logits, found.logits, shift)
        ranked = [
            (-self.after_penalty(token, logit - shift), token, logit - shift)
            for token, logit in zip(found.ids, found.logits, strict=True)
            if token not in self.banned
        ]
        ranked.sort()
        del ranked[count:]
        return Ranking(
            [token for _, token, _ in ranked],
            [-value for value, _, _ in ranked],
            [before for _, _, before in ranked],
        )

    def first(self, found: Candidates, hope: int) -> tuple[int, float] | None:
        """Return the likeliest token and its logit before filters; None if others may be as likely.

        Penalties of at least 1 lift no token. So none that stands behind the best one so far can be
        better, and those that were not found stand behind all.

        Args:
            found: What the step has found.
            hope: As in `question`.
        """
        if not self._wanted(1, hope):
            return None
        best, most = None, RULED_OUT
        for token, logit in zip(found.ids, found.logits, strict=True):
            if logit < most:
                return best
            if token in self.banned:
                continue
            value = self.after_penalty(token, logit)
            if best is None or value > most or (value == most and token < best[0]):
                best, most = (token, logit), value
        last = best is not None and (best[0], most) == (found.ids[-1], found.logits[-1])
        return best if last or self._moved <= hope else None

    def filtered(self, row: Row) -> Row:
        """Apply all filters to a whole row: (V,) -> (V,)."""
        if self.bias:
            row = biased(row, self.bias)
        if self.penalised:
            row = penalise(row, list(self.penalised), self.penalty)
        end = [self.vocabulary.eos_id] if self.end_denied else []
        return suppress(row, [*self.vocabulary.never, *self.banned, *end])

    def after_penalty(self, token: int, value: float) -> float:
        """Apply the repetition penalty to a token's value."""
        if token not in self.penalised:
            return value
        return value * self.penalty if value < 0 else value / self.penalty

    @property
    def _moved(self) -> int:
        """How many candidates they may move out of the first place."""
        return len(self.penalised) + (len(self.banned) if self.told else 0)

    def _wanted(self, count: int, hope: int | None = None) -> int:
        """How many candidates are enough to rank `count` tokens; 0: only the whole row is."""
        if self.bias:  # may lift any token
            return 0
        if not (self.banned or self.penalised):
            return count  # most often
        wanted = count + (self._moved if hope is None else min(self._moved, hope))
        few = count > 0 and wanted <= max(count, MOST_CANDIDATES)
        return wanted if few and not self.exhausted and self.penalty >= 1 else 0

    def rank_row(
        self, row: Row, count: int, further: Callable[[Row], Row] | None = None
    ) -> Ranking:
        """Rank a whole row (V,); `further` rules out more of what filters have left."""
        left = self.filtered(row) if further is None else further(self.filtered(row))
        best, end = likeliest(left, count), self.vocabulary.eos_id
        if not best.ids:
            return Ranking([end], [float(row[end])], [float(row[end])])
        return Ranking(best.ids, best.logits, row[best.ids].tolist())
