"""One token after the other, each the likeliest or drawn."""

from __future__ import annotations

from collections.abc import Sequence

from splitformer.generation.choosing import NEVER_ASKED, Asking, Chooser
from splitformer.generation.decoding import News, Request, Vocabulary
from splitformer.generation.inspection import Inspection
from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import Rules
from splitformer.generation.seen import Seen, seen_of
from splitformer.generation.stops import Stops
from splitformer.generation.target import Target
from splitformer.generation.tokens import EndReason, Produced
from splitformer.model.stepping import Advanced


class Sequential:
    """Greedy decoding or sampling, as a `Decoding`; see there.

    Args:
        target: What to go on with.
        options: How to choose.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
        start: First token that its reader wants; None: the one after the last produced.
        forced: Tokens to take next instead of choosing.
    """

    width = 1
    held_bytes = 0

    def __init__(
        self,
        target: Target,
        options: GenerationOptions,
        limit: int,
        vocabulary: Vocabulary,
        start: int | None = None,
        forced: Sequence[int] = (),
    ) -> None:
        self.target = target
        self.limit = limit
        self._most = min(limit, target.max_positions - len(target.start) + 1)
        self._options = options
        self._vocabulary = vocabulary
        watched = options.reshaped or options.inspected or options.stop or vocabulary.speech
        self._unwatched = not watched  # nobody looks at tokens but their reader
        self._seen = seen_by(options, target) if options.reshaped else None
        self._inspection = Inspection(options, vocabulary) if options.inspected else None
        self._chooser = Chooser(options, vocabulary, len(target.start) - 1, self._inspection)
        self._asking = NEVER_ASKED  # for the last token
        self._forced = tuple(forced)
        room = target.max_positions - len(target.start)
        self._ending = room if vocabulary.end_at_limit else -1  # index at which the end is due
        self._told = len(target.produced) if start is None else start
        self._stops = Stops(options.stop) if options.stop else None
        if self._stops is not None:
            self._stops.follow(target.produced)
        self.finished = self._over

    @property
    def seed(self) -> int:
        """Key of the generator; 0 for greedy."""
        return (self._options.seed or 0) if self._options.sampled else 0

    @property
    def _over(self) -> bool:
        target, stops = self.target, self._stops
        over = target.end is not None or len(target.produced) >= self._most
        return over or (stops is not None and stops.at is not None)

    def ask(self, request: Request) -> None:
        """Ask for the row of what was not computed yet."""
        target, asking = self.target, self._asking
        output, index = request.add(target.pending, target.state), len(target.produced)
        if index >= asking.until:
            self._asking = asking = self._asking_at(index)
        if asking.question is not None:
            request.asked[output] = asking.question

    def _ask_at(self, request: Request, output: int, index: int) -> None:
        """Ask for the token at an index from one of several outputs."""
        self._asking = asking = self._asking_at(index)
        if asking.question is not None:
            request.asked[output] = asking.question

    def take(self, answer: Advanced, first: int) -> None:
        """Take the next token: the one that is due, the likeliest or a drawn one."""
        token, asking, target = answer.ids[first], self._asking, self.target
        step_chose = asking.rules is None and asking.settled < 0 and token >= 0
        if step_chose and self._unwatched:  # most often
            eos_id = self._vocabulary.eos_id
            target.take(token, answer.log_probabilities[first], eos_id)
            self.finished = token == eos_id or len(target.produced) >= self._most
        elif step_chose:
            self._go_on(answer, first, token, answer.log_probabilities[first])
        elif (chosen := self._chosen(answer, first, asking)) is None:
            self._ask_again(asking)
        else:
            self._go_on(answer, first, *chosen)

    def _take_at(self, answer: Advanced, output: int) -> None:
        """Take the next token from one of several outputs."""
        self._asking = self._asking_at(len(self.target.produced))
        Sequential.take(self, answer, output)

    def _asking_at(self, index: int) -> Asking:
        """Say what to ask for the token at an index."""
        if self._forced or index == self._ending:
            token = self._forced[0] if self._forced else self._vocabulary.eos_id
            return self._chooser.settled(token, index)
        asking = self._chooser.asking(index, self._seen, self._asking)
        if index < self._ending < asking.until:
            asking = asking._replace(until=self._ending)
        return asking

    def _chosen(self, answer: Advanced, first: int, asking: Asking) -> tuple[int, float] | None:
        """Return the next token and its log-probability; None if it takes more to choose it."""
        if asking.settled >= 0:
            self._forced = self._forced[1:]
            return asking.settled, answer.log_probability(first, answer.given[first])
        if asking.rules is None or (chosen := self._choose(answer, first, asking.rules)) is None:
            return None
        return chosen[0], answer.log_probability(first, chosen[1])

    def _choose(self, answer: Advanced, first: int, rules: Rules) -> tuple[int, float] | None:
        """Choose a token and return its logit; None if that takes more than was asked for."""
        return self._chooser.choose(answer, first, len(self.target.produced), rules)

    def _ask_again(self, asking: Asking) -> None:
        """Go back to where the last token was not computed, and ask for more, or for its whole row.

        The same comes out, bit for bit, so that nothing tells a step that was taken twice.
        """
        self._chooser.missed(len(self.target.produced), drawn=asking.rules is None)
        self._asking = NEVER_ASKED
        self.target.state.truncate(self.target.state.length - 1)

    def _go_on(self, answer: Advanced, first: int, token: int, log_probability: float) -> None:
        """Go on by a token, and let everybody who follows the target know."""
        inspection, target = self._inspection, self.target
        details = None if inspection is None else inspection.tell(answer, first, token, target)
        target.take(token, log_probability, self._vocabulary.eos_id, details)
        if self._seen is not None:
            self._seen.add(token)
        if self._stops is not None:
            self._stops.follow(target.produced)
        self.finished = self._over

    def certain(self) -> list[tuple[int, Produced]]:
        """Return new tokens, except those that may turn out to belong to a stop string."""
        produced, stops, told = self.target.produced, self._stops, self._told
        until = len(produced) if stops is None or self.finished else stops.certain
        until = min(until, self.limit)
        if until <= told:
            return []
        self._told = until
        if stops is not None:
            return [(i, stops.cut(i, produced[i])) for i in range(told, until)]
        return [(i, produced[i]) for i in range(told, until)]

    def news(self) -> list[News]:
        """Return new tokens, and the end once there is nothing left to compute."""
        told, produced = self._told, self.target.produced
        if self._stops is None and not self.finished and len(produced) == told + 1:  # most often
            self._told = told + 1
            return [(told, produced[told])]
        certain = self.certain()
        return [*certain, self._reason] if self.finished else [*certain]

    @property
    def _reason(self) -> EndReason:
        produced = len(self.target.produced)
        if self._stopped and produced <= self.limit:
            return EndReason.STOP
        if produced >= self.limit or self.target.end is None:
            return EndReason.LENGTH
        return EndReason.EOS

    @property
    def _stopped(self) -> bool:
        return self._stops is not None and self._stops.at is not None


def seen_by(options: GenerationOptions, target: Target) -> Seen:
    """Return what a target holds so far, for the filters that look at it."""
    said = [*target.start, *(token.id for token in target.produced)]
    return seen_of(options, said)
