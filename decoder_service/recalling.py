"""Answers out of what a session has produced already, while it lives and after it was let go."""

from __future__ import annotations

from collections.abc import Sequence

from decoder_service.answers import Ended, IndexedToken, Yielded
from decoder_service.sessions import Record
from splitformer.errors import FailedPreconditionError, InvalidArgumentError
from splitformer.generation import EndReason, GenerationOptions, Produced, Stops


def checked_start(start_index: int | None, produced: int) -> int:
    """Return which token comes first; raises BAD_START_INDEX or START_INDEX_AHEAD."""
    if start_index is None:
        return produced
    if start_index < 0:
        raise InvalidArgumentError.of(
            "start_index", "must be at least 0", start_index, reason="BAD_START_INDEX"
        )
    if start_index > produced:
        raise FailedPreconditionError(
            f"start_index: must be at most {produced}, the next token's, got {start_index}",
            reason="START_INDEX_AHEAD",
        )
    return start_index


def check_forced(
    forced_token: int | None, index: int, produced: Sequence[Produced], end: Produced | None
) -> None:
    """FailedPreconditionError if another token than the forced one is at `index` already."""
    taken = produced[index] if index < len(produced) else end
    if forced_token is not None and taken is not None and taken.id != forced_token:
        raise FailedPreconditionError(
            f"forced_token: must be {taken.id}, which was taken at index {index} already,"
            f" got {forced_token}",
            reason="TOKEN_ALREADY_TAKEN",
        )


def batches(tokens: Sequence[IndexedToken], most: int) -> list[list[IndexedToken]]:
    """Cut tokens into lists of at most `most`."""
    return [list(tokens[i : i + most]) for i in range(0, len(tokens), most)]


def cut(produced: Sequence[Produced], options: GenerationOptions) -> list[IndexedToken]:
    """Return tokens as a generation with these options shows them."""
    stops = Stops(options.stop)
    stops.follow(produced)
    return [(i, stops.cut(i, token)) for i, token in enumerate(produced)]


def seed_of(options: GenerationOptions, default: int) -> int:
    """Key of the generator: the caller's or the session's; 0 where nothing is drawn."""
    if not options.sampled:
        return 0
    return default if options.seed is None else options.seed


def remembered(
    record: Record, index: int, options: GenerationOptions
) -> IndexedToken | Ended | None:
    """What a step at `index` gave before its session was let go; None if it never ran."""
    total = len(record.produced)
    if index < total:
        return cut(record.produced[: index + 1], options)[index]
    if index == total and record.ended is not None:
        return Ended(reason=EndReason.EOS, tokens=0, total_tokens=total, closing=record.ended)
    return None


def replay(record: Record, options: GenerationOptions, start: int, most: int) -> list[Yielded]:
    """Repeat what a session that was let go has streamed, candidates and end included."""
    total = len(record.produced)
    start = checked_start(start, total)
    stop = min(total, start + (options.max_new_tokens or total))
    ended = Ended(
        reason=record.end if record.end and stop == total else EndReason.LENGTH,
        tokens=stop - start,
        total_tokens=total,
        seed=seed_of(options, record.seed),
        closing=record.ended,
    )
    search = record.search if options.beams > 1 and stop == total else None
    found = [search.found(options)] if search else []
    return [*batches(cut(record.produced, options)[start:stop], most), *found, ended]
