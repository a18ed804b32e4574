"""All tokens at once, refined pass by pass: decoding without a loop over tokens.

A whole block of places is guessed. Every pass computes all of them, each from the guesses before
it, and what the model makes of them is the next guess (Jacobi iteration; Song et al. 2021, Santilli
et al. 2023). What follows from right tokens only is certain, at least one more with each pass, and
what has converged is what the loop gives. A limit of passes trades that for speed: after the last
one a block counts as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.decoding import Request
from splitformer.generation.sequential import Sequential
from splitformer.model.stepping import Advanced

_PLACES_PER_ROW, _MORE_PLACES = 2, 4


class Parallel(Sequential):
    """Parallel decoding as a `Decoding`; see there. Its steps are passes.

    Attributes:
        drafted: Tokens guessed so far.
        kept: Tokens of those that were right.
    """

    drafted = kept = 0
    _passes = 0
    _block: Sequence[int] | None = None

    def ask(self, request: Request) -> None:
        """Ask for all places of the block."""
        target = self.target
        if self._block is None:
            self._block, self._passes = self._first_guess(), 0
        outputs = len(self._block) + 1
        first = request.add([*target.pending, *self._block], target.state, outputs)
        for i in range(outputs):
            self._ask_at(request, first + i, len(target.produced) + i)

    def take(self, answer: Advanced, first: int) -> None:
        """Take what is certain, or after the last pass all, and guess the rest anew."""
        target, block = self.target, self._block or ()
        before, right = len(target.produced), 0
        self._passes += 1
        last = self._passes == self._options.max_passes
        self._take_at(answer, first)
        taken = 1
        while taken <= len(block) and not self.finished:
            right += right == taken - 1 and target.produced[-1].id == block[taken - 1]
            if right < taken and not last:
                break
            self._take_at(answer, first + taken)
            taken += 1
        outputs = answer.ids[first + taken : first + len(block) + 1]
        self._block = None if last else outputs[: self._room]
        self.drafted += len(block)
        self.kept += right
        known = len(target.start) + before + right
        target.state.truncate(min(known, target.state.length))

    def _first_guess(self) -> list[int]:
        """Guess as many places as a target over such a memory is likely to have."""
        places = _PLACES_PER_ROW * self.target.state.cross.length + _MORE_PLACES
        return [self._vocabulary.eos_id] * min(places, self._room)

    @property
    def _room(self) -> int:
        """Most places that a block may have."""
        target = self.target
        room = target.max_positions - len(target.start) - self._vocabulary.end_at_limit
        return min(self.limit - 1, room) - len(target.produced)
