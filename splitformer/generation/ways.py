"""Which way to decode a caller's options mean; the one place that knows them all."""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.beam import Beam
from splitformer.generation.decoding import Decoding, Vocabulary
from splitformer.generation.options import GenerationOptions
from splitformer.generation.sequential import Sequential
from splitformer.generation.target import Target


def decoding_for(
    target: Target,
    options: GenerationOptions,
    limit: int,
    vocabulary: Vocabulary,
    start: int | None = None,
    forced: Sequence[int] = (),
) -> Decoding:
    """Return the decoding that goes on with a target as the options say.

    Args:
        target: What to go on with.
        options: How to choose.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
        start: First token that its reader wants; None: the one after the last produced.
        forced: Tokens to take next instead of choosing.
    """
    if options.beams > 1:
        return Beam(target, options, limit, vocabulary, start)
    return Sequential(target, options, limit, vocabulary, start, forced)
