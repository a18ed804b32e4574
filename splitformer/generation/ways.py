"""Which way to decode a caller's options mean; the one place that knows them all."""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.beam import Beam
from splitformer.generation.constrained import Constrained
from splitformer.generation.copying import Copier
from splitformer.generation.decoding import Decoding, Vocabulary
from splitformer.generation.drafting import NO_DRAFTS, Drafting, Guesser
from splitformer.generation.glossary import Wanted
from splitformer.generation.jacobi import Iteration
from splitformer.generation.options import DecodingMode, DraftMode, GenerationOptions
from splitformer.generation.parallel import Parallel
from splitformer.generation.sequential import Sequential
from splitformer.generation.speculative import Speculative
from splitformer.generation.spoken import Spoken, SpokenBeam, check_spoken
from splitformer.generation.target import Target


def decoding_for(
    target: Target,
    options: GenerationOptions,
    limit: int,
    vocabulary: Vocabulary,
    start: int | None = None,
    forced: Sequence[int] = (),
    drafting: Drafting = NO_DRAFTS,
    wanted: Wanted | None = None,
) -> Decoding:
    """Return the decoding that goes on with a target as the options say.

    Args:
        target: What to go on with.
        options: How to choose.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
        start: First token that its reader wants; None: the one after the last produced.
        forced: Tokens to take next instead of choosing.
        drafting: What guessing several tokens at once has to know of the model.
        wanted: What the options' glossary demands of this target; None: nothing.

    Raises:
        UnimplementedError: OPTION_NOT_OFFERED, a model of speech is asked for drafts or a glossary.
    """
    if vocabulary.speech is not None:
        check_spoken(options, vocabulary)
        if options.beams > 1:
            return SpokenBeam(target, options, limit, vocabulary, start)
        return Spoken(target, options, limit, vocabulary, start, forced)
    if wanted is not None:
        return Constrained(target, options, limit, vocabulary, wanted, start)
    options = options.without_glossary()
    if options.beams > 1:
        return Beam(target, options, limit, vocabulary, start)
    if options.mode is DecodingMode.PARALLEL:
        return Parallel(target, options, limit, vocabulary, start, forced)
    mode = options.draft or _best_mode(target, options, drafting)
    if mode is DraftMode.OFF:
        return Sequential(target, options, limit, vocabulary, start, forced)
    guesser: Guesser = Iteration() if mode is DraftMode.JACOBI else Copier(target, drafting)
    return Speculative(target, options, limit, vocabulary, guesser, drafting, start, forced)


def drafts_of(decoding: Decoding) -> tuple[int, int]:
    """Return how many tokens a decoding has guessed, and how many of those were right."""
    if isinstance(decoding, Speculative | Parallel):
        return decoding.drafted, decoding.kept
    return 0, 0


def draft_mode_of(decoding: Decoding) -> DraftMode | None:
    """Return where a decoding's guesses come from; None if the loop does not guess."""
    return decoding.mode if isinstance(decoding, Speculative) else None


def _best_mode(target: Target, options: GenerationOptions, drafting: Drafting) -> DraftMode:
    """Copy where that changes nothing but the time and likely shortens it.

    Draws and filters need more than the likeliest id of every row, which makes rows dear.
    """
    copies = drafting.lossless and options.plain and drafting.promises(target)
    return DraftMode.COPY if copies else DraftMode.OFF
