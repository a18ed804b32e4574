"""What a step is asked about one output, as the library reads it."""

from __future__ import annotations

from array import array
from struct import Struct

from splitformer.native.drawing import Draw

_RECORD = Struct("Q6iQq7d")  # `Question` in src/request.h
_NOTHING_DRAWN = Draw(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Question:
    """What is asked about an output beyond the likeliest id; it never changes.

    So it may be asked about many outputs and in many steps: a sequence that is under the same rules
    from token to token keeps it.

    Args:
        denied: Further ids ruled out, ascending.
        candidates: How many of the likeliest ids are wanted.
        logits: All logits are wanted, for a choice of their own.
        given: An id whose logit is wanted; -1: none.
        attention: The attention over the memory is wanted.
        draw: How to draw a token that takes the place of the likeliest; None: none.
        seed: Of the points of draws.
        first: Position that the first of them belongs to.

    Attributes:
        record: All this, packed.
        answered: True if more comes back than a token.
    """

    __slots__ = (
        *("_ids", "answered", "attention", "candidates", "denied"),
        *("draw", "first", "given", "logits", "record", "seed"),
    )

    def __init__(
        self,
        denied: tuple[int, ...] = (),
        candidates: int = 0,
        logits: bool = False,
        given: int = -1,
        attention: bool = False,
        draw: Draw | None = None,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self.denied = denied
        self.candidates = candidates
        self.logits = logits
        self.given = given
        self.attention = attention
        self.draw = draw
        self.seed = seed
        self.first = first
        self.answered = candidates > 0 or logits or given >= 0 or attention
        self._ids = array("i", denied)
        self.record = _RECORD.pack(
            *(self._ids.buffer_info()[0], len(denied), given, candidates),
            *(logits, attention, 0, seed, first),
            *(draw or _NOTHING_DRAWN),
        )

    def asks(
        self,
        denied: tuple[int, ...],
        candidates: int,
        logits: bool,
        given: int,
        attention: bool,
        draw: Draw | None = None,
    ) -> bool:
        """True if this, and nothing else, is what is asked."""
        same = self.candidates == candidates and self.denied == denied and self.draw is draw
        kinds = self.logits == logits and self.given == given and self.attention == attention
        return same and kinds


NO_QUESTION = Question()
"""Only the likeliest id is wanted."""
