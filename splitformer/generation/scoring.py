"""What the model thinks of a target that is known already: nothing is chosen.

All positions go through the decoder in parallel, as in training (teacher forcing). They go in
pieces, so that sequences that share a step with them are not held up.
"""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.decoding import News, Request
from splitformer.generation.target import Target
from splitformer.generation.tokens import EndReason, Produced
from splitformer.model.stepping import Advanced
from splitformer.native import Question

PIECE = 16
"""Most positions that a step takes on; it costs about what as many sequences cost."""


class Scoring:
    """Log-probabilities of given tokens, as a `Decoding`; see there.

    Args:
        target: Nothing may have been produced yet; the given tokens are added to it.
        tokens: What to score, at least one; the end token is one like any other.
    """

    seed = 0
    held_bytes = 0

    def __init__(self, target: Target, tokens: Sequence[int]) -> None:
        assert not target.produced
        self.target = target
        self.limit = len(tokens)
        self._tokens = list(tokens)
        self._told = 0

    @property
    def width(self) -> int:
        """Positions of the next step."""
        return min(PIECE, self.limit - len(self.target.produced))

    @property
    def finished(self) -> bool:
        """True once all are scored."""
        return len(self.target.produced) == self.limit

    def ask(self, request: Request) -> None:
        """Ask what the next tokens' logits are, each after those before it."""
        begin, width = len(self.target.produced), self.width
        scored = self._tokens[begin : begin + width]
        first = request.add([*self.target.pending, *scored[:-1]], self.target.state, width)
        for output, token in enumerate(scored, first):
            request.asked[output] = Question(given=token)

    def take(self, answer: Advanced, first: int) -> None:
        """Take the logits."""
        target, begin = self.target, len(self.target.produced)
        for output, token in enumerate(self._tokens[begin : begin + self.width], first):
            score = answer.log_probability(output, answer.given[output])
            target.produced.append(Produced(token, target.detokenizer.add(token), score))

    def certain(self) -> list[tuple[int, Produced]]:
        """Return tokens that have been scored since the last call."""
        begin, self._told = self._told, len(self.target.produced)
        return list(enumerate(self.target.produced))[begin:]

    def news(self) -> list[News]:
        """Return them, and the end once all are there."""
        events: list[News] = [*self.certain()]
        if self.finished:
            events.append(EndReason.LENGTH)
        return events
