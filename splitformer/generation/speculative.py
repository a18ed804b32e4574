"""Several tokens a step: guesses are computed together, and those the model agrees with are kept.

Where several positions at once give the same bits as one after the other, every output is what the
loop would have had: a guess counts only if it is the very token that the model chose before it, and
what was computed for the others is cut back (Leviathan et al. 2023, with guesses that are certain
or wrong).
"""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.choosing import NEVER_ASKED
from splitformer.generation.decoding import Request, Vocabulary
from splitformer.generation.drafting import NOWHERE, Drafting, Guesser, Look
from splitformer.generation.options import GenerationOptions
from splitformer.generation.sequential import Sequential
from splitformer.generation.target import Target
from splitformer.model.stepping import Advanced


class Speculative(Sequential):
    """The loop with guesses, as a `Decoding`; see there.

    Args:
        target: What to go on with.
        options: How to choose.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
        guesser: Where guesses come from.
        drafting: What they cost.
        start: First token that its reader wants; None: the one after the last produced.
        forced: Tokens to take next instead of choosing; while there are any, nothing is guessed.

    Attributes:
        drafted: Tokens guessed so far.
        kept: Tokens of those that were right.
        mode: Where guesses come from.
    """

    def __init__(
        self,
        target: Target,
        options: GenerationOptions,
        limit: int,
        vocabulary: Vocabulary,
        guesser: Guesser,
        drafting: Drafting,
        start: int | None = None,
        forced: Sequence[int] = (),
    ) -> None:
        super().__init__(target, options, limit, vocabulary, start, forced)
        self._chooser.rows_only = True  # what filters rule out depends on the guess
        plain = self._chooser.plain and self._unwatched
        self._bare = plain and not options.bans  # tokens are all that is asked for
        self.drafted = self.kept = 0
        self.mode = guesser.mode
        self._guesser = guesser
        self._drafting = drafting
        self._draft: list[int] = []
        self._look: Look = NOWHERE  # where the model looked as it chose the last token
        room = target.max_positions - len(target.start) - vocabulary.end_at_limit
        self._last = min(limit - 1, room)  # index of the last token that a draft may lead to

    def ask(self, request: Request) -> None:
        """Ask for the row of what was not computed yet, and for those of a guess."""
        prices = self._drafting.prices(request.company)
        self._draft = draft = self._guess(prices)
        request.focus |= self._guesser.looks and bool(prices)
        if not draft:
            super().ask(request)
            return
        target, outputs = self.target, len(draft) + 1
        first, index = request.count, len(target.produced)
        request.add([*target.pending, *draft], target.state, outputs)
        if not self._bare or index < self._options.min_new_tokens:
            self._question_each(request, first, index)

    def take(self, answer: Advanced, first: int) -> None:
        """Choose the next token, and one more for as long as the last was the one guessed."""
        draft, known = self._draft, len(self.target.produced)
        if draft:
            self._take_draft(answer, first, draft)
        else:
            super().take(answer, first)
        if (taken := len(self.target.produced) - known) and answer.focus:
            last = first + taken - 1
            self._look = answer.focus[last], answer.focus_weights[last]
        elif taken:
            self._look = NOWHERE

    def _take_draft(self, answer: Advanced, first: int, draft: list[int]) -> None:
        kept = self._take_bare(answer, first) if self._bare else self._take_each(answer, first)
        self._asking = NEVER_ASKED  # what was asked of a guess may not hold
        if kept < len(draft):
            self._cut_back()
        self._guesser.learn(answer.ids[first : first + len(draft) + 1], kept)
        self.drafted += len(draft)
        self.kept += kept

    def _question_each(self, request: Request, first: int, index: int) -> None:
        """Ask what it takes to choose each token, those before it being the guess."""
        seen = self._seen
        self._seen = None if seen is None else seen.fork()
        self._ask_at(request, first, index)
        for i, token in enumerate(self._draft, 1):
            if self._seen is not None:
                self._seen.add(token)
            self._ask_at(request, first + i, index + i)
        self._seen = seen

    def _take_each(self, answer: Advanced, first: int) -> int:
        """Take tokens one by one, each as if it were alone; return how many were guessed."""
        draft, produced, kept = self._draft, self.target.produced, 0
        self._take_at(answer, first)
        while kept < len(draft) and not self.finished and produced[-1].id == draft[kept]:
            kept += 1
            self._take_at(answer, first + kept)
        return kept

    def _take_bare(self, answer: Advanced, first: int) -> int:
        """Do the same where tokens are all that is asked for; a draft ends before the limit."""
        draft, target, eos_id, kept = self._draft, self.target, self._vocabulary.eos_id, 0
        token = answer.ids[first]
        target.take(token, answer.log_probabilities[first], eos_id)
        while kept < len(draft) and token == draft[kept] and token != eos_id:
            kept += 1
            token = answer.ids[first + kept]
            target.take(token, answer.log_probabilities[first + kept], eos_id)
        self.finished = self._over
        return kept

    def _guess(self, prices: Sequence[float]) -> list[int]:
        """Guess as far as limit, positions and prices allow."""
        produced = self.target.produced
        most = self._last - len(produced)
        if not prices or most < 1 or self._forced:
            return []
        return self._guesser.guess(produced, prices[:most], self._look)

    def _cut_back(self) -> None:
        """Forget the rows of tokens that were not taken, and of the last one, the next input."""
        target = self.target
        length = len(target.start) + len(target.produced) - (target.end is None)
        target.state.truncate(min(length, target.state.length))
