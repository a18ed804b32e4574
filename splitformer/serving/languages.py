"""Which languages a request may name, and what follows for source and target."""

from __future__ import annotations

from splitformer.errors import FailedPreconditionError, InvalidArgumentError, shown
from splitformer.model.languages import Frame, Languages

_NAMED = 20
"""Languages that a message names at most; metadata hold all of them."""


def bound_language(languages: Languages, source: str, target: str, text: str = "") -> str:
    """Check the languages that a source names; return the one that its memory is bound to.

    Args:
        languages: The model's.
        source: Language of the source, or empty.
        target: Target language, or empty.
        text: The source, which may name its target language itself.

    Raises:
        InvalidArgumentError: UNKNOWN_LANGUAGE or LANGUAGE_ON_DECODER.
    """
    if source not in languages.sources:
        raise unknown_language("source.language", tuple(languages.sources), source)
    if languages.on_decoder and target:
        raise InvalidArgumentError.of(
            "source.target_language",
            "must be empty: this model's decoder chooses the language",
            target,
            reason="LANGUAGE_ON_DECODER",
        )
    bound = target or languages.marked(text)
    if not languages.on_decoder and bound not in languages.bindings:
        raise unknown_language("source.target_language", tuple(languages.bindings), bound)
    return bound


def frame_of(languages: Languages, source: str, bound: str, text: str) -> Frame:
    """Return what goes around a source; all languages must have been checked."""
    frame = languages.sources[source]
    if languages.on_decoder or (bound and bound == languages.marked(text)):
        return frame
    return frame.inside(languages.bindings[bound])


def check_target(languages: Languages, target: str) -> None:
    """InvalidArgumentError UNKNOWN_LANGUAGE unless a session may ask for this language."""
    known = languages.starts if languages.on_decoder else {"": (), **languages.bindings}
    if target not in known:
        raise unknown_language("target_language", tuple(known), target)


def check_bound(languages: Languages, target: str, bound: str) -> None:
    """Check a session's language against what its memory is bound to, empty if to nothing.

    Raises:
        FailedPreconditionError: LANGUAGE_BOUND.
    """
    free = languages.on_decoder and not bound
    if not free and target not in ("", bound):
        raise FailedPreconditionError(
            f"target_language: must be {bound!r}, which the memory is bound to, or empty, got"
            f" {shown(target)}",
            reason="LANGUAGE_BOUND",
        )


def unknown_language(field: str, known: tuple[str, ...], got: str) -> InvalidArgumentError:
    """Return the refusal of a language that is not among the known ones; "" means none named."""
    named = list(filter(None, known))
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    rule = f"must be one of {', '.join(named[:_NAMED]) or '(none)'}{more}"
    if named == [named[0] if named else ""]:
        rule = f"must be {named[0]!r}"
    return InvalidArgumentError.of(
        field,
        rule + " or empty" * ("" in known),
        got,
        reason="UNKNOWN_LANGUAGE",
        metadata={"known": ",".join(named)},
    )
