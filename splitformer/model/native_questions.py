"""What a step is asked, as the native library takes it, and its answers sorted by output."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from struct import Struct

from splitformer.model.cache import DecoderState
from splitformer.model.stepping import Advanced, Asked, Candidates
from splitformer.native import DRAW_NUMBERS, FloatArray, Outputs, Questions

_DRAW = Struct(f"{DRAW_NUMBERS}d")


def questions_of(
    asked: Asked,
    mask: array[float] | None,
    states: Sequence[DecoderState],
    outputs: Sequence[int],
    log_probabilities: bool,
) -> Questions:
    """Spread out over all outputs what only some are asked.

    Args:
        asked: What is asked.
        mask: Ids that no output may get.
        states: The sequences' states.
        outputs: How many outputs each sequence has.
        log_probabilities: Compute them.
    """
    if not asked:
        return Questions(mask=mask, log_probabilities=log_probabilities)
    total = sum(outputs)
    begins, length = _attention(asked, states, outputs) if asked.attention else ({}, 0)
    denied, ends = _denied(asked, total) if asked.denied else (None, None)
    return Questions(
        mask=mask,
        denied=denied,
        denied_end=ends,
        logits_rows=_spread({i: row for row, i in enumerate(asked.logits)}, total),
        rows=len(asked.logits),
        room=_spread(_room(asked), total, otherwise=0),
        given=_spread(asked.given, total),
        attention_from=_spread(begins, total, type_code="q"),
        attention=length,
        draws=_draws(asked, total) if asked.draws else None,
        log_probabilities=log_probabilities,
    )


def advanced_of(result: Outputs, asked: Asked, questions: Questions) -> Advanced:
    """Sort the answers by the outputs that asked."""
    return Advanced(
        result.ids.tolist(),
        result.log_probabilities.tolist(),
        _logits(result, asked) if asked.logits else {},
        result.log_sums.tolist(),
        _candidates(result, asked, questions) if asked.candidates else {},
        {i: result.given[i] for i in asked.given},
        _rows(result, asked, questions) if asked.attention else {},
    )


def _logits(result: Outputs, asked: Asked) -> dict[int, FloatArray]:
    return dict(zip(asked.logits, result.logits, strict=True))


def _room(asked: Asked) -> Mapping[int, int]:
    """How many candidates of each output the step has to find."""
    if not asked.draws:
        return asked.candidates
    room = {i: count for i, (count, _) in asked.draws.items() if count}
    for i, count in asked.candidates.items():
        room[i] = max(count, room.get(i, 0))
    return room


def _denied(asked: Asked, total: int) -> tuple[array[int], array[int]]:
    """All that is denied, and where each output's share of it ends."""
    _check("denied", asked.denied, total)
    denied = asked.denied.get
    shares = [denied(i, ()) for i in range(total)]
    return array("i", [*chain(*shares)]), array("i", [*accumulate(map(len, shares))])


def _draws(asked: Asked, total: int) -> array[float]:
    _check("draws", asked.draws, total)
    draws, write, size = array("d", bytes(_DRAW.size * total)), _DRAW.pack_into, _DRAW.size
    for i, (among, draw) in asked.draws.items():
        write(draws, size * i, *draw, among)
    return draws


def _check(name: str, outputs: Iterable[int], total: int) -> None:
    """IndexError if there is no such output."""
    if (last := max(outputs)) >= total:
        raise IndexError(f"{name}: outputs must be below {total}, got {last}")


def _candidates(result: Outputs, asked: Asked, questions: Questions) -> dict[int, Candidates]:
    """Read the pairs (logit, id) from the first who asked to the last."""
    assert questions.room is not None
    ends, answers = [*accumulate(questions.room, initial=0)], dict[int, Candidates]()
    begin = ends[min(asked.candidates)]
    pairs = result.candidates[begin : ends[max(asked.candidates) + 1]].tobytes()
    logits, ids = array("f", pairs)[::2].tolist(), array("i", pairs)[1::2].tolist()
    for i in asked.candidates:
        first, end = ends[i] - begin, ends[i + 1] - begin
        known = end if ids[end - 1] >= 0 else ids.index(-1, first)
        answers[i] = Candidates(ids[first:known], logits[first:known])
    return answers


def _rows(result: Outputs, asked: Asked, questions: Questions) -> dict[int, FloatArray]:
    begins, rows = questions.attention_from, dict[int, FloatArray]()
    assert begins is not None
    end = len(result.attention)
    for i in sorted(asked.attention, reverse=True):
        rows[i] = result.attention[begins[i] : end]
        end = begins[i]
    return rows


def _attention(
    asked: Asked, states: Sequence[DecoderState], outputs: Sequence[int]
) -> tuple[dict[int, int], int]:
    """Where each output's attention begins, and the length of all."""
    begins: dict[int, int] = {}
    length, every = 0, [s for s, n in zip(states, outputs, strict=True) for _ in range(n)]
    for i in sorted(asked.attention):
        begins[i] = length
        length += every[i].cross.length
    return begins, length


def _spread(
    values: Mapping[int, int], total: int, otherwise: int = -1, type_code: str = "i"
) -> array[int] | None:
    """One value for each of `total` outputs; None if there is none to tell."""
    if not values:
        return None
    spread = array(type_code, (otherwise,)) * total
    for i, value in values.items():
        spread[i] = value
    return spread
