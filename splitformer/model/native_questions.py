"""What a step is asked, as the native library takes it, and its answers sorted by output."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping, Sequence

from splitformer.model.cache import DecoderState
from splitformer.model.stepping import Advanced, Asked, Candidates
from splitformer.native import DRAW_NUMBERS, FloatArray, Outputs, Questions


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
    begins, length = _attention(asked, states, outputs)
    room = _room(asked)
    denied, ends = _denied(asked, total)
    return Questions(
        mask=mask,
        denied=denied,
        denied_end=ends,
        logits_rows=_spread({i: row for row, i in enumerate(asked.logits)}, total),
        rows=len(asked.logits),
        room=_spread(room, total, otherwise=0),
        given=_spread(asked.given, total),
        attention_from=_spread(begins, total, type_code="q"),
        attention=length,
        draws=_draws(asked, total),
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
        {i: float(result.given[i]) for i in asked.given},
        _rows(result, asked, questions) if asked.attention else {},
    )


def _logits(result: Outputs, asked: Asked) -> dict[int, FloatArray]:
    return dict(zip(asked.logits, result.logits, strict=True))


def _room(asked: Asked) -> dict[int, int]:
    """How many candidates of each output the step has to find."""
    room = {i: count for i, (count, _) in asked.draws.items() if count}
    if not room:
        return asked.candidates
    for i, count in asked.candidates.items():
        room[i] = max(count, room.get(i, 0))
    return room


def _denied(asked: Asked, total: int) -> tuple[array[int] | None, array[int] | None]:
    """All that is denied, and where each output's share of it ends."""
    if not asked.denied:
        return None, None
    _check("denied", asked.denied, total)
    denied, ends = array("i"), array("i")
    for i in range(total):
        denied.extend(asked.denied.get(i, ()))
        ends.append(len(denied))
    return denied, ends


def _draws(asked: Asked, total: int) -> array[float] | None:
    if not asked.draws:
        return None
    _check("draws", asked.draws, total)
    draws = [0.0] * (DRAW_NUMBERS * total)
    for i, (among, draw) in asked.draws.items():
        draws[DRAW_NUMBERS * i : DRAW_NUMBERS * (i + 1)] = *draw, among
    return array("d", draws)


def _check(name: str, outputs: Iterable[int], total: int) -> None:
    """IndexError if there is no such output."""
    if (last := max(outputs)) >= total:
        raise IndexError(f"{name}: outputs must be below {total}, got {last}")


def _candidates(result: Outputs, asked: Asked, questions: Questions) -> dict[int, Candidates]:
    ids, logits = result.candidates["id"].tolist(), result.candidates["logit"].tolist()
    answers, begin = {}, 0
    assert questions.room is not None
    for i, room in enumerate(questions.room):
        end = begin + room
        if i in asked.candidates:
            known = end if ids[end - 1] >= 0 else ids.index(-1, begin)
            answers[i] = Candidates(ids[begin:known], logits[begin:known])
        begin = end
    return answers


def _rows(result: Outputs, asked: Asked, questions: Questions) -> dict[int, FloatArray]:
    assert questions.attention_from is not None
    shown = sorted(asked.attention)
    begins = [*(questions.attention_from[i] for i in shown), len(result.attention)]
    parts = itertools.starmap(slice, itertools.pairwise(begins))
    return {i: result.attention[part] for i, part in zip(shown, parts, strict=True)}


def _attention(
    asked: Asked, states: Sequence[DecoderState], outputs: Sequence[int]
) -> tuple[dict[int, int], int]:
    """Where each output's attention begins, and the length of all."""
    begins: dict[int, int] = {}
    if not asked.attention:
        return begins, 0
    length = 0
    sources = [s.cross.length for s, n in zip(states, outputs, strict=True) for _ in range(n)]
    for i in sorted(asked.attention):
        begins[i] = length
        length += sources[i]
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
