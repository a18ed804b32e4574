"""Beam search: the likeliest hypotheses side by side, and the part they agree on as it comes.

The search is that of Hugging Face Transformers. A step looks at the
2 n likeliest continuations of all n beams together. Of those, the first n that go on become the
beams; the ones among the first n that end are complete, and the best n complete ones are kept. A
complete hypothesis scores the sum of its log-probabilities divided by its length to the power of
the length penalty. The search is over when n are complete and the likeliest beam, if it ended now,
would not be better than the worst of them; or when nothing can go on. With `early_stopping` it is
over as soon as n are complete.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator
from functools import reduce

from splitformer.generation.beam_states import BeamStates
from splitformer.generation.decoding import News, Request, Vocabulary
from splitformer.generation.hypotheses import (
    Complete,
    Continuation,
    Live,
    Node,
    Search,
    common,
)
from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import Ranking, Rules
from splitformer.generation.seen import Seen, seen_of
from splitformer.generation.stops import Said, Stops
from splitformer.generation.target import Target
from splitformer.generation.tokens import EndReason, Produced
from splitformer.model.stepping import Advanced
from splitformer.native import Question


class Beam:
    """Beam search, as a `Decoding`; see there.

    The target gets the tokens that are certain: those that every hypothesis that may still win
    begins with. Its own state stays where the search began. A search that is interrupted stays with
    the target, and goes on when the same is asked for again.

    Args:
        target: What to go on with.
        options: How to choose; `num_beams` is above 1.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
        start: First token that its reader wants; None: the one after the last produced.
    """

    seed = 0

    def __init__(
        self,
        target: Target,
        options: GenerationOptions,
        limit: int,
        vocabulary: Vocabulary,
        start: int | None = None,
    ) -> None:
        self.target = target
        self.limit = limit
        self.width = options.beams
        self._options = options
        self._vocabulary = vocabulary
        self._told = len(target.produced) if start is None else start
        self._stops = Stops(options.stop)
        self._stops.follow(target.produced)
        self._search = search_of(target, options, limit)
        if not self.finished:
            target.search = self._search
        self._states = BeamStates(target, self._search.origin)
        self._rules: list[Rules] = []
        self._asked: Question | None = None  # about the last beam
        self._said: dict[Node, Said] = {}
        self._seen: dict[Node, Seen] = {}  # of the beams

    @property
    def held_bytes(self) -> int:
        """Most bytes of keys and values that the beams hold beside their target's."""
        if self.finished:
            return 0
        positions = len(self.target.start) + self._search.most - 1
        return self.width * self.target.state.own.bytes_up_to(positions)

    @property
    def finished(self) -> bool:
        """True if there is nothing left to compute."""
        target, search = self.target, self._search
        said = target.end is not None or self._stops.at is not None
        return search.over or said or len(target.produced) >= search.most

    def ask(self, request: Request) -> None:
        """Ask for the likeliest next tokens of every beam."""
        live, first = self._search.live, request.count
        for node, _ in live:
            request.add(*self._states.inputs(node))
        if self._options.reshaped:
            self._rules = [self._rules_at(node) for node, _ in live]
            self._seen = {node: self._seen[node] for node, _ in live}
            for output, rules in enumerate(self._rules, first):
                request.asked[output] = self._asked = self._question(rules)
        else:  # they depend on how much was said, not on what
            self._rules = [self._rules_at(live[0].node)] * len(live)
            self._asked = self._question(self._rules[0])
            request.asked.update(dict.fromkeys(range(first, request.count), self._asked))

    def take(self, answer: Advanced, first: int) -> None:
        """Choose the beams of the next step, and hand on what has become certain."""
        search = self._search
        going_on = self._sift(self._continuations(answer, first))
        children = [(each.node(), each) for each in going_on]
        self._move(children)
        search.live = [Live(node, each.total) for node, each in children]
        search.over = self._nothing_better()
        self._hand_on()

    def certain(self) -> list[tuple[int, Produced]]:
        """Return new tokens, except those that may turn out to belong to a stop string."""
        produced, stops = self.target.produced, self._stops
        until = len(produced) if self.finished else stops.certain
        tokens = [(i, produced[i]) for i in range(self._told, min(until, self.limit))]
        self._told += len(tokens)
        return [(i, stops.cut(i, token)) for i, token in tokens]

    def news(self) -> list[News]:
        """Return new tokens; once there is nothing left to compute, the candidates and the end."""
        events: list[News] = [*self.certain()]
        if self.finished:
            if self._search.complete:
                events.append(self._search.found(self._options))
            events.append(self._reason)
        return events

    @property
    def _reason(self) -> EndReason:
        if self._search.over:
            return self._search.complete[0].reason
        if self._stops.at is not None:
            return EndReason.STOP
        return EndReason.LENGTH if self.target.end is None else EndReason.EOS

    def _question(self, rules: Rules) -> Question:
        """Say what to ask for a beam."""
        return rules.question(2 * self.width, known=self._asked)

    def _rules_at(self, node: Node) -> Rules:
        search = self._search
        seen = self._seen_by(node) if self._options.reshaped else None
        produced = search.origin + node.depth
        last = len(self.target.start) + produced == self.target.max_positions
        return Rules.at(self._options, self._vocabulary, seen, produced, last)

    def _seen_by(self, node: Node) -> Seen:
        """What a beam holds, made of what the one that it continues does."""
        if node not in self._seen:
            if node.parent in self._seen:
                seen = self._seen[node.parent].fork()
                seen.add(node.id)
            else:
                before = [token.id for token in self._search.before]
                said = [*self.target.start, *before, *(each.id for each in node.after(0))]
                seen = seen_of(self._options, said)
            self._seen[node] = seen
        return self._seen[node]

    def _continuations(self, answer: Advanced, first: int) -> Iterable[Continuation]:
        """Give the likeliest continuations of all beams together, likeliest first."""
        lives, most, found = self._search.live, 2 * self.width, None
        if self._as_found(self._rules[0]):
            found = answer.together(first, [live.total for live in lives], most)
        if found is None:
            return self._likeliest(enumerate(self._rankings(answer, first)), most)
        return (Continuation(-fallen, lives[i].node, token, own) for fallen, i, token, own in found)

    def _as_found(self, rules: Rules) -> bool:
        """True if candidates rank as the step has found them."""
        return not (self._options.reshaped or rules.shaping)

    def _rankings(self, answer: Advanced, first: int) -> list[Ranking]:
        """Return what may come next in each beam."""
        most = 2 * self.width
        return [rules.rank(answer, first + i, most) for i, rules in enumerate(self._rules)]

    def _likeliest(
        self, rankings: Iterable[tuple[int, Ranking]], most: int
    ) -> Iterator[Continuation]:
        """Give the likeliest continuations of some beams together, likeliest first."""
        lives = self._search.live
        found: list[tuple[float, int, int, int, float]] = []  # sum, beam, place, token, its own
        for i, (ids, values, own, shift) in rankings:
            before = -lives[i].total
            least = found[-1][0] if len(found) == most else math.inf
            for place, shifted in enumerate(values):
                value = shifted - shift
                fallen = before - value if value < 0.0 else before
                if fallen >= least:  # so are those behind it
                    break
                found.append((fallen, i, place, ids[place], own[place] - shift))
            found.sort()  # of equals the first beam's first goes first
            del found[most:]
        for fallen, i, _, token, log_probability in found:
            yield Continuation(-fallen, lives[i].node, token, log_probability)

    def _sift(self, best: Iterable[Continuation]) -> list[Continuation]:
        """Put aside what is complete; return what goes on."""
        search, going_on, ended, eos_id = self._search, [], [], self._vocabulary.eos_id
        full = search.origin + search.live[0].node.depth + 1 >= search.most  # equally long
        may_end = full or bool(self._options.stop)
        for rank, each in enumerate(best):
            reason = self._ends(each) if may_end or each.id == eos_id else None
            if reason is None:
                going_on.append(each)
                if len(going_on) == self.width:
                    break
            elif rank < self.width:
                ended.append(self._completed(each, reason))
        if ended:
            search.complete += ended
            search.complete.sort(key=lambda each: -each.score)
            del search.complete[self.width :]
        return going_on

    def _ends(self, each: Continuation) -> EndReason | None:
        if each.id == self._vocabulary.eos_id:
            return EndReason.EOS
        if self._options.stop and self._say(each.parent).add(each.id).stopped(self._options.stop):
            return EndReason.STOP
        full = self._search.origin + each.parent.depth + 1 >= self._search.most
        return EndReason.LENGTH if full else None

    def _completed(self, each: Continuation, reason: EndReason) -> Complete:
        score = self._mean(each.total, each.parent.depth + 1)
        if reason is EndReason.EOS:
            return Complete(each.parent, score, reason, each.node().log_probability)
        return Complete(each.node(), score, reason)

    def _say(self, node: Node) -> Said:
        """The text of a beam."""
        if node not in self._said:
            if node.parent is None:
                before = "".join(token.text for token in self._search.before)
                said = Said(self._search.detokenizer.fork(), before)
            else:
                said = self._say(node.parent).add(node.id)
            self._said[node] = said
        return self._said[node]

    def _move(self, children: list[tuple[Node, Continuation]]) -> None:
        """Give every new beam the state of the one that it continues."""
        self._states.move([(node, each.parent) for node, each in children])

    def _nothing_better(self) -> bool:
        """True if the search is over."""
        live, complete = self._search.live, self._search.complete
        if not live:
            return True
        if len(complete) < self.width:
            return False
        if self._options.early_stopping:
            return True
        return self._mean(live[0].total, live[0].node.depth) <= complete[-1].score

    def _hand_on(self) -> None:
        """Give the target what has become certain."""
        search, target, eos_id = self._search, self.target, self._vocabulary.eos_id
        contenders = [each.node for each in search.complete[:1]]
        if not search.over:
            contenders += [live.node for live in search.live if self._may_win(live)]
        agreed = reduce(common, contenders)
        for node in agreed.after(search.certain.depth):
            target.take(node.id, node.log_probability, eos_id)
        search.certain = agreed
        if search.over and search.complete[0].reason is EndReason.EOS:
            target.take(eos_id, search.complete[0].end, eos_id)
        self._stops.follow(target.produced)

    def _may_win(self, live: Live) -> bool:
        """True if a hypothesis may become the best: its sum can only fall, its length grow."""
        search, penalty = self._search, self._options.penalty
        if not search.complete:
            return True
        length = search.most - search.origin if penalty > 0 else live.node.depth + 1
        return self._mean(live.total, length) > search.complete[0].score

    def _mean(self, total: float, length: int) -> float:
        """Return the score of a hypothesis of some tokens, the end token included."""
        return total / float(self._counted(length) ** self._options.penalty)

    def _counted(self, length: int) -> int:
        """Add what a target was made to begin with, which Transformers counts too."""
        return length + (0 if self._search.origin else self.target.forced)


def search_of(target: Target, options: GenerationOptions, limit: int) -> Search:
    """Return the target's search if that is what is asked for, else a new one."""
    known = target.search
    most = min(limit, target.max_positions - len(target.start) + 1)
    asked = dataclasses.replace(options, max_new_tokens=None, num_return_sequences=None, seed=None)
    if known and (known.asked, known.most) == (asked, most) and known.made(target.produced):
        return known
    root = [Live(Node(None, -1, 0.0), 0.0)]
    return Search(asked, most, tuple(target.produced), target.detokenizer.fork(), root)
