"""What a step is asked, put together kind by kind."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from splitformer.native import Draw, Question


def asked_of(
    *,
    denied: Mapping[int, tuple[int, ...]] | None = None,
    candidates: Mapping[int, int] | None = None,
    logits: Collection[int] = (),
    given: Mapping[int, int] | None = None,
    attention: Collection[int] = (),
    draws: Mapping[int, Draw] | None = None,
) -> dict[int, Question]:
    """Ask by output: all that `Question` takes."""
    denied, candidates, given, draws = denied or {}, candidates or {}, given or {}, draws or {}
    return {
        i: Question(
            denied.get(i, ()),
            candidates.get(i, 0),
            i in logits,
            given.get(i, -1),
            i in attention,
            draws.get(i),
        )
        for i in {*denied, *candidates, *logits, *given, *attention, *draws}
    }
