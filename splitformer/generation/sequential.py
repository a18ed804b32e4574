"""One token after the other, each the likeliest or drawn."""

from __future__ import annotations

import torch

from splitformer.generation.decoding import News, Request, Vocabulary
from splitformer.generation.filters import suppress
from splitformer.generation.options import GenerationOptions
from splitformer.generation.selectors import select
from splitformer.generation.target import EndReason, Target
from splitformer.model.stepping import Advanced


class Sequential:
    """Greedy decoding or sampling, as a `Decoding`; see there.

    Args:
        target: What to go on with.
        options: How to choose.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
    """

    width = 1

    def __init__(
        self, target: Target, options: GenerationOptions, limit: int, vocabulary: Vocabulary
    ) -> None:
        self.target = target
        self.limit = limit
        self._options = options
        self._vocabulary = vocabulary
        self._sampled = options.sampled
        self._told = len(target.produced)

    @property
    def seed(self) -> int:
        """Key of the generator; 0 for greedy."""
        return (self._options.seed or 0) if self._sampled else 0

    @property
    def finished(self) -> bool:
        """True if there is nothing left to compute."""
        target = self.target
        return target.end is not None or target.full or len(target.produced) >= self.limit

    def ask(self, request: Request) -> None:
        """Ask for the row of what was not computed yet."""
        output = request.add(self.target.pending, self.target.state)
        if self._end_denied:
            request.denied[output] = self._vocabulary.eos_id
        if self._sampled:
            request.logits.add(output)

    def take(self, answer: Advanced, first: int) -> None:
        """Choose the next token."""
        token, log_probability = answer.ids[first], answer.log_probabilities[first]
        if self._sampled:
            token = self._draw(answer.logits[first])
            log_probability = float(answer.logits[first][token]) - answer.log_sums[first]
        self.target.take(token, log_probability, self._vocabulary.eos_id)

    def news(self) -> list[News]:
        """Return new tokens, and the end once there is nothing left to compute."""
        produced = self.target.produced
        events: list[News] = [(i, produced[i]) for i in range(self._told, len(produced))]
        self._told = len(produced)
        if self.finished:
            over = len(produced) >= self.limit or self.target.end is None
            events.append(EndReason.LENGTH if over else EndReason.EOS)
        return events

    @property
    def _end_denied(self) -> bool:
        return len(self.target.produced) < self._options.min_new_tokens

    def _draw(self, logits: torch.Tensor) -> int:
        never = self._vocabulary.never
        ruled_out = (*never, self._vocabulary.eos_id) if self._end_denied else never
        allowed = suppress(logits, torch.tensor(ruled_out, dtype=torch.long))
        return select(allowed, self._options, len(self.target.produced))
