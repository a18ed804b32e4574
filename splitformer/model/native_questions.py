"""What a step is asked, as the native library takes it, and its answers sorted by output."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from splitformer.model.cache import DecoderState
from splitformer.model.stepping import Advanced, Asked, Found
from splitformer.native import NO_QUESTION, FloatArray, Outputs, Question, Questions

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


def advanced_of(result: Outputs, told: Told, questions: Questions) -> Advanced:
    """Sort the answers by the outputs that asked."""
    ids, log_probabilities = result.ids.tolist(), result.log_probabilities.tolist()
    answer = Advanced(ids, log_probabilities, {}, result.log_sums.tolist())
    if questions.candidates:
        answer.candidates = _candidates(result.candidates, told)
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


def _candidates(answer: array[int], told: Told) -> Found:
    """Read pairs (logit, id), as many for each output as it asked for."""
    pairs, begin, places = answer.tobytes(), 0, dict[int, tuple[int, int]]()
    logits, ids = array("f", pairs)[::2].tolist(), array("i", pairs)[1::2].tolist()
    for i, question in told:
        if count := question.candidates:
            known = begin + count if ids[begin + count - 1] >= 0 else ids.index(-1, begin)
            places[i] = begin, known
            begin += count
    return Found(ids, logits, places)


def _attention(answer: FloatArray, told: Told, lengths: Sequence[int]) -> dict[int, FloatArray]:
    rows, begin = dict[int, FloatArray](), 0
    asked = [i for i, question in told if question.attention]
    for i, length in zip(asked, lengths, strict=True):
        rows[i] = answer[begin : begin + length]
        begin += length
    return rows
