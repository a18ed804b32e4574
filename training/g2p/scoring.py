"""Word and phoneme error rates.

As in Yolchuyeva et al. 2019 (https://arxiv.org/abs/2004.06338) and the papers it compares: a word
is right if it equals any of its pronunciations; phoneme errors are edits to the nearest one, over
that one's length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from training.g2p.dictionary import Pronunciation


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Rates in per cent.

    Attributes:
        words: words scored.
        wer: share of the words with an error.
        per: edits per phoneme.
    """

    words: int
    wer: float
    per: float


def error_rates(
    outputs: Sequence[Pronunciation], references: Sequence[Sequence[Pronunciation]]
) -> ErrorRates:
    """Scores one output per word against all pronunciations of the word."""
    wrong = edits = length = 0
    for output, wanted in zip(outputs, references, strict=True):
        distance, nearest = min((edit_distance(output, w), len(w)) for w in wanted)
        wrong += distance > 0
        edits += distance
        length += nearest
    return ErrorRates(
        len(outputs),
        round(100 * wrong / max(len(outputs), 1), 2),
        round(100 * edits / max(length, 1), 2),
    )


def edit_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Returns the fewest insertions, deletions and substitutions (Levenshtein 1966)."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
