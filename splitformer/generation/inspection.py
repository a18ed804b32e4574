"""What a caller may want to know of a token beside itself: what else was likely, what it looked at.

Everything is the model's, before filters: filters change which token is taken, not what is told.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from splitformer.generation.decoding import Vocabulary
from splitformer.generation.options import GenerationOptions
from splitformer.generation.target import Target
from splitformer.generation.tokens import Alternative, Details, details_bytes
from splitformer.model.stepping import Advanced, rounded
from splitformer.model.tokenizer import SourcePiece

SHARED = 0.5
"""A source position aligns if it gets at least this share of what the best one gets."""


class Inspection:
    """Knows what the options want to be told, and tells it.

    Args:
        options: What is wanted.
        vocabulary: The model's.

    Attributes:
        candidates: How many of the likeliest tokens a step is asked for.
        attention: It is asked for the attention over the memory.
    """

    def __init__(self, options: GenerationOptions, vocabulary: Vocabulary) -> None:
        self._alternatives = options.alternatives
        most = min(options.alternatives + 1, vocabulary.size or 1 << 31)
        self.candidates = most if options.alternatives else 0
        self.attention = options.attention or options.alignments
        self._weights, self._alignments = options.attention, options.alignments
        self._texts: list[int] | None = None  # source positions that text belongs to

    def tell(self, answer: Advanced, output: int, token: int, target: Target) -> Details:
        """Tell of a token that was taken, before the target goes on by it."""
        weights = answer.attention[output].tolist() if output in answer.attention else []
        return Details(
            self._others(answer, output, token, target) if self._alternatives else (),
            array("f", weights if self._weights else ()),
            self._aligned(weights, target) if self._alignments else (),
        )

    def _aligned(self, weights: Sequence[float], target: Target) -> tuple[int, ...]:
        if self._texts is None:
            self._texts = with_text(target.source)
        return aligned(weights, self._texts)

    def _others(
        self, answer: Advanced, output: int, token: int, target: Target
    ) -> tuple[Alternative, ...]:
        ids, logits = answer.candidates[output]
        shift, peek = answer.log_sums[output], target.detokenizer.peek
        others = [i for i, other in enumerate(ids) if other != token][: self._alternatives]
        return tuple(
            [Alternative(ids[i], peek(ids[i]), rounded(logits[i] - shift)) for i in others]
        )


def most_bytes(options: GenerationOptions, rows: int, tokens: int) -> int:
    """Return what is told of some tokens takes at most, over a memory of so many rows."""
    weights, aligned = rows * options.attention, rows * options.alignments
    return max(0, tokens) * details_bytes(options.alternatives, weights, aligned)


def kept_bytes(target: Target) -> int:
    """Return what was told of a target's tokens takes."""
    tokens = (*target.produced, target.end)
    return sum(token.details.size_bytes for token in tokens if token and token.details)


def with_text(source: Sequence[SourcePiece]) -> list[int]:
    """Return the source positions that text belongs to."""
    return [i for i, piece in enumerate(source) if piece.begin < piece.end]


def aligned(weights: Sequence[float], texts: Sequence[int]) -> tuple[int, ...]:
    """Return the source positions that a token aligns with, in order.

    These are the one that gets the most attention and those that get at least half as much. Tokens
    that no text belongs to, such as the end token, do not count, unless nothing is known of the
    source or it has no others.

    Args:
        weights: Of each source position.
        texts: The positions that text belongs to.
    """
    places = texts or range(len(weights))
    shares = weights if len(places) == len(weights) else [weights[i] for i in places]
    least = SHARED * max(shares)
    return tuple([i for i, share in zip(places, shares, strict=True) if share >= least])
