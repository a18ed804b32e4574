"""What the filters make of the likeliest tokens of one position, without looking at all of them.

A filter rules tokens out or makes them less likely. If it can do so to n tokens, then the k
likeliest that are left are among the k + n likeliest before. So most of the time a few candidates
do; where they do not, the whole row is asked for. Both ways give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from splitformer.generation.decoding import Request, Vocabulary
from splitformer.generation.filters import completing, penalise, suppress
from splitformer.generation.options import GenerationOptions
from splitformer.model.stepping import RULED_OUT, Advanced, likeliest

MOST_CANDIDATES = 64
"""Beyond so many, ranking costs more than handing over the row."""


class Ranked(NamedTuple):
    """A token that may come next.

    Attributes:
        id: Token id.
        value: Its log-probability after filters.
        log_probability: The same before filters.
    """

    id: int
    value: float
    log_probability: float


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

    def ask(self, request: Request, output: int, count: int) -> None:
        """Ask for what `rank` needs to know."""
        if self.end_denied:
            request.denied[output] = self.vocabulary.eos_id
        if self.end_due:
            request.given[output] = self.vocabulary.eos_id
            return
        wanted = count + len(self.banned) + len(self.penalised)
        enough = not self.banned or wanted + len(self.vocabulary.never) < self.vocabulary.size
        if self.penalty >= 1 and wanted <= max(count, MOST_CANDIDATES) and enough:
            request.candidates[output] = wanted
        else:
            request.logits.add(output)

    def rank(self, answer: Advanced, output: int, count: int) -> list[Ranked]:
        """Return the `count` likeliest tokens, likeliest first; if none is left, the end."""
        log_sum = answer.log_sums[output]
        if self.end_due:
            return [Ranked(self.vocabulary.eos_id, 0.0, answer.given[output] - log_sum)]
        found = answer.candidates.get(output)
        if found is None:
            return self._from_row(answer.logits[output].double() - log_sum, count)
        raw = [logit - log_sum for logit in found.logits]
        if not (self.banned or self.penalised):
            return [Ranked(i, p, p) for i, p in zip(found.ids, raw, strict=True)]
        ranked = [
            Ranked(i, self._penalised(i, p), p)
            for i, p in zip(found.ids, raw, strict=True)
            if i not in self.banned
        ]
        ranked.sort(key=lambda each: (-each.value, each.id))
        return ranked[:count]

    def _penalised(self, token: int, value: float) -> float:
        if token not in self.penalised:
            return value
        return value * self.penalty if value < 0 else value / self.penalty

    def _from_row(self, row: torch.Tensor, count: int) -> list[Ranked]:
        """Rank all log-probabilities (V,)."""
        end, values = self.vocabulary.eos_id, row
        if self.penalised:
            values = penalise(values, list(self.penalised), self.penalty)
        banned = [*self.vocabulary.never, *self.banned, *([end] if self.end_denied else ())]
        values = suppress(values, torch.tensor(banned, dtype=torch.long))
        if float(values.max()) == RULED_OUT:
            return [Ranked(end, float(row[end]), float(row[end]))]
        best = likeliest(values, count)
        return [
            Ranked(i, value, float(row[i])) for i, value in zip(best.ids, best.logits, strict=True)
        ]
