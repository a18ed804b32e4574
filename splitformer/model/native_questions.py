"""What a step is asked, as the native library takes it, and its answers sorted by output."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from splitformer.model.cache import DecoderState
from splitformer.model.stepping import Advanced, Asked, Candidates
from splitformer.native import (
    NO_QUESTION,
    Continuations,
    FloatArray,
    Outputs,
    Question,
    Questions,
    continuations,
)

Told = list[tuple[int, Question]]
"""Outputs to which more comes back than a token, in their order, and what they asked."""


def questions_of(
    asked: Asked,
    mask: array[float] | None,
    states: Sequence[DecoderState],
    outputs: Sequence[int],
    log_probabilities: bool,
    focus: bool = False,
) -> tuple[Questions, Told]:
    """Put together what all outputs are asked.

    Args:
        asked: What is asked.
        mask: Ids that no output may get.
        states: The sequences' states.
        outputs: How many outputs each sequence has.
        log_probabilities: Compute them.
        focus: Say of all outputs where they look.
    """
    if not asked:
        return Questions(mask, None, (), 0, 0, False, log_probabilities, focus), []
    records, told = _records(asked, sum(outputs))
    if not told:
        return Questions(mask, records, (), 0, 0, False, log_probabilities, focus), told
    told.sort()
    attention = [i for i, question in told if question.attention]
    questions = Questions(
        mask,
        records,
        _lengths(attention, states, outputs) if attention else (),
        sum([question.candidates for _, question in told]),
        sum([question.logits for _, question in told]),
        any(question.given >= 0 for _, question in told),
        log_probabilities,
        focus,
    )
    return questions, told


class Found(Mapping[int, Candidates]):
    """The candidates of all outputs that asked for some, read where they are looked at.

    Args:
        pairs: Pairs (logit, id), those of one output behind the other.
        told: What was asked.
    """

    __slots__ = ("_ids", "_logits", "_pairs", "_places")

    def __init__(self, pairs: array[int], told: Told) -> None:
        self._pairs, begin = pairs, 0
        raw = pairs.tobytes()
        self._logits, self._ids = array("f", raw)[::2], array("i", raw)[1::2]
        self._places: dict[int, tuple[int, int]] = {}
        for i, question in told:
            if room := question.candidates:
                self._places[i] = begin, room
                begin += room

    def __getitem__(self, output: int) -> Candidates:
        """The candidates of one output."""
        begin, room = self._places[output]
        ids = self._ids[begin : begin + room].tolist()
        if ids[-1] < 0:  # there are no more
            ids = ids[: ids.index(-1)]
        return Candidates(ids, self._logits[begin : begin + len(ids)].tolist())

    def __iter__(self) -> Iterator[int]:
        """The outputs."""
        return iter(self._places)

    def __len__(self) -> int:
        """How many outputs there are."""
        return len(self._places)

    def together(
        self, first: int, log_sums: array[float], totals: Sequence[float], most: int
    ) -> Continuations:
        """As `Advanced.together`."""
        return continuations(self._pairs, *self._places[first], log_sums, first, totals, most)


@dataclass(slots=True)
class NativeAdvanced(Advanced):
    """What a step of the library brought.

    Attributes:
        found: The candidates.
        sums: The `log_sums` as they came.
    """

    found: Found | None = None
    sums: array[float] = field(default_factory=lambda: array("f"))

    def together(self, first: int, totals: Sequence[float], most: int) -> Continuations | None:
        """Return the best continuations of hypotheses; see `Advanced`."""
        found = self.found
        return found.together(first, self.sums, totals, most) if found and first in found else None


def advanced_of(result: Outputs, told: Told, questions: Questions) -> Advanced:
    """Sort the answers by the outputs that asked."""
    ids, log_probabilities = result.ids.tolist(), result.log_probabilities.tolist()
    answer = NativeAdvanced(ids, log_probabilities, {}, result.log_sums.tolist())
    if questions.candidates:
        answer.candidates = answer.found = Found(result.candidates, told)
        answer.sums = result.log_sums
    if questions.rows:
        asked = [i for i, question in told if question.logits]
        answer.logits = dict(zip(asked, result.logits, strict=True))
    if questions.given:
        answer.given = {i: result.given[i] for i, question in told if question.given >= 0}
    if questions.lengths:
        answer.attention = _attention(result.attention, told, questions.lengths)
    if result.focus and result.focus_weights:
        answer.focus, answer.focus_weights = result.focus.tolist(), result.focus_weights.tolist()
    return answer


def _records(asked: Asked, total: int) -> tuple[array[int], Told]:
    records, told = [NO_QUESTION.record] * total, Told()
    for i, question in asked.items():
        if i >= total:
            raise IndexError(f"asked: outputs must be below {total}, got {i}")
        records[i] = question.record
        if question.answered:
            told.append((i, question))
    return array("q", b"".join(records)), told


def _lengths(
    attention: Sequence[int], states: Sequence[DecoderState], outputs: Sequence[int]
) -> list[int]:
    """Rows of the memories that some outputs attend over."""
    every = [s for s, n in zip(states, outputs, strict=True) for _ in range(n)]
    return [every[i].cross.length for i in attention]


def _attention(answer: FloatArray, told: Told, lengths: Sequence[int]) -> dict[int, FloatArray]:
    rows, begin = dict[int, FloatArray](), 0
    asked = [i for i, question in told if question.attention]
    for i, length in zip(asked, lengths, strict=True):
        rows[i] = answer[begin : begin + length]
        begin += length
    return rows
