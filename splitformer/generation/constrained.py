"""Beam search for targets that contain given terms.

This is lexically constrained decoding with dynamic beam allocation (Post and Vilar 2018): beside
the likeliest continuations of a hypothesis, those are looked at that go on with a term it lacks,
and the beams are shared out among hypotheses that have come equally far with the terms. So a
hypothesis that has written a term competes with those that have written it elsewhere, and not with
those that have yet to.

Where a term belongs is seen by the model's attention: a place counts the more, the more of it the
term's source gets where the term begins. What terms cost weighs the same in hypotheses of any
length, so that it cannot be made up for by saying more; see `Constrained.score`.

A hypothesis may end only when it contains all terms, and one that has no room left for what it
lacks is dropped: so whatever is found contains every term.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from splitformer.generation.beam import Beam
from splitformer.generation.contradictions import refuse, violation
from splitformer.generation.decoding import Vocabulary
from splitformer.generation.glossary import Wanted
from splitformer.generation.hypotheses import Complete, Continuation, Live, Node
from splitformer.generation.options import GenerationOptions
from splitformer.generation.progress import Progress, Writing
from splitformer.generation.rules import Ranking, Rules
from splitformer.generation.stops import Said
from splitformer.generation.target import Target
from splitformer.generation.tokens import EndReason
from splitformer.model.stepping import Advanced
from splitformer.native import Question

MOST_BEAMS = 32
_SPARE_BEAMS = 6
"""Beams beyond one for each token of the terms."""

_PATIENCE = 8
"""Tokens by which a hypothesis that lacks terms may be longer than the best one that has all."""

_LEAST_ATTENTION = 1e-3

Advance = tuple[Continuation, Progress]
Ending = EndReason | None


class Constrained(Beam):
    """Beam search under constraints, as a `Decoding`; see `Beam`.

    Args:
        target: What to go on with.
        options: How to choose.
        limit: Length of the target at which to stop.
        vocabulary: The model's.
        wanted: What the target must contain.
        start: First token that its reader wants; None: the one after the last produced.

    Raises:
        InvalidArgumentError: BAD_OPTION; there is no room for the terms.
    """

    def __init__(
        self,
        target: Target,
        options: GenerationOptions,
        limit: int,
        vocabulary: Vocabulary,
        wanted: Wanted,
        start: int | None = None,
    ) -> None:
        super().__init__(target, options, limit, vocabulary, start)
        self._wanted = wanted
        self._writing = Writing(wanted)
        self._rows = [list(rows) for rows in wanted.rows]
        self._source_length = target.state.cross.length
        self._going_on: list[Advance] = []
        needed = _SPARE_BEAMS + self._writing.all_tokens
        self.width = max(options.beams, min(needed, MOST_BEAMS))
        root = self._search.live[0].node if self._search.live else None
        if root is not None and root.parent is None:
            self._search.notes[root] = self._beginning()
            if not self.finished:
                self._check_room(root)

    def _question(self, rules: Rules) -> Question:
        """Ask for the likeliest next tokens of a beam, and for what all others would be."""
        return rules.question(2 * self.width, row=True, attention=any(self._rows))

    def _beginning(self) -> Progress:
        search = self._search
        before = "".join(token.text for token in search.before)
        return self._writing.begin(Said(search.detokenizer.fork(), self._wanted.prefix + before))

    def _check_room(self, root: Node) -> None:
        left, room = self._progress(root).left, self._room(root)
        rule = f"must leave room: the terms take {left} tokens, and {max(room, 0)} may come"
        names = [term.text for term in self._wanted.terms]
        refuse([violation("options.glossary", rule, names)] if left > room else [])

    def _room(self, node: Node) -> int:
        """Tokens that may follow, the end token aside."""
        search, target = self._search, self.target
        full = search.most == target.max_positions - len(target.start) + 1
        ending = full and self._vocabulary.end_at_limit
        return search.most - search.origin - node.depth - ending

    def _progress(self, node: Node) -> Progress:
        """How far a beam has come."""
        progress: Progress = self._search.notes[node]
        return progress

    def _continuations(self, answer: Advanced, first: int) -> list[Continuation]:
        """Return the likeliest continuations of each bank, and all that go on with a term."""
        rankings, banks = self._rankings(answer, first), dict[int, list[tuple[int, Ranking]]]()
        for i, live in enumerate(self._search.live):
            progress = self._progress(live.node)
            progress.offer(self._places(answer, first + i), live.total)
            banks.setdefault(progress.left, []).append((i, rankings[i]))
        share = 2 * -(-self.width // len(banks))
        found = [each for bank in banks.values() for each in self._likeliest(bank, share)]
        known = {(each.parent, each.id) for each in found}
        for i in range(len(rankings)):
            found += (e for e in self._steps(answer, first, i) if (e.parent, e.id) not in known)
        return found

    def _steps(self, answer: Advanced, first: int, i: int) -> Iterator[Continuation]:
        """Give the continuations of a beam that bring it closer to what it lacks."""
        live, rules, output = self._search.live[i], self._rules[i], first + i
        for token in sorted(self._progress(live.node).steps) if not rules.end_due else ():
            before = answer.log_probability(output, float(answer.logits[output][token]))
            value = min(0.0, rules.after_penalty(token, before))
            yield Continuation(live.total + value, live.node, token, before)

    def _places(self, answer: Advanced, output: int) -> list[float]:
        """What it counts to begin each term at an output: nothing if its source has all attention.

        It is the logarithm of the attention that the rows get which stand for the term's source.
        """
        if output not in answer.attention:
            return [0.0] * len(self._rows)
        attention = answer.attention[output]
        shares = (float(attention[rows].sum()) if rows else 1.0 for rows in self._rows)
        return [min(0.0, math.log(max(_LEAST_ATTENTION, share))) for share in shares]

    def _sift(self, best: Iterable[Continuation]) -> list[Continuation]:
        """Put aside what is complete; share the beams out among the others."""
        search, banks = self._search, dict[int, list[Advance]]()
        for each, after, reason in self._advances(best):
            if reason is None:
                banks.setdefault(self._bank(after), []).append((each, after))
            else:
                search.complete.append(self._with_all(each, after, reason))
        self._going_on = _shared_out(banks, self.width)
        if not (self._going_on or search.complete):
            search.complete = [*self._cut_off()]
        search.complete.sort(key=lambda each: -each.score)
        del search.complete[self.width :]
        return [each for each, _ in self._going_on]

    def _advances(
        self, best: Iterable[Continuation]
    ) -> list[tuple[Continuation, Progress, Ending]]:
        """Return what can still be a target with all terms, and if possible none too often."""
        possible = [
            (each, after, reason)
            for each in best
            for after, reason in [(self._after(each), self._ends(each))]
            if (not after.left if reason else after.left < self._room(each.parent))
        ]
        surplus = self._writing.surplus
        return [a for a in possible if not surplus(a[1], a[2] is not None)] or possible

    def _after(self, each: Continuation) -> Progress:
        before = self._progress(each.parent)
        if each.id == self._vocabulary.eos_id:
            return before
        return self._writing.after(before, each.id, each.total)

    def _move(self, children: list[tuple[Node, Continuation]]) -> None:
        super()._move(children)
        advances = zip(children, self._going_on, strict=True)
        self._search.notes = {node: after for (node, _), (_, after) in advances}

    def _bank(self, progress: Progress) -> int:
        """Number of the group that a hypothesis shares beams with; no more groups than beams."""
        groups = self._writing.all_tokens + 1
        return progress.left if groups <= self.width else progress.left * self.width // groups

    def _with_all(self, each: Continuation, progress: Progress, reason: EndReason) -> Complete:
        score = self.score(each.total, progress, each.parent.depth + 1)
        if reason is EndReason.EOS:
            return Complete(each.parent, score, reason, each.node().log_probability)
        return Complete(each.node(), score, reason)

    def _cut_off(self) -> Iterator[Complete]:
        """Give beams with all terms that nothing may follow, for those that it leaves."""
        for live in self._search.live:
            progress = self._progress(live.node)
            if not progress.left:
                score = self.score(live.total, progress, live.node.depth)
                yield Complete(live.node, score, EndReason.LENGTH)

    def score(self, total: float, progress: Progress, length: int) -> float:
        """Return the score of a hypothesis with some terms.

        What the terms cost, their places included, is divided by the length of the source, and the
        rest by the hypothesis' own, both to the power of the length penalty.

        Args:
            total: Sum of its log-probabilities after filters.
            progress: Its terms.
            length: Its tokens, the end token included.
        """
        penalty, terms = self._options.penalty, progress.tokens
        own, source = self._counted(length) ** penalty, float(self._source_length**penalty)
        return (total - terms) / float(own) + (terms + progress.places) / source

    def _nothing_better(self) -> bool:
        """True if enough is found, and no beam would be better by ending now."""
        live, complete, enough = self._search.live, self._search.complete, self._options.beams
        if not live or len(complete) < enough:
            return not live
        if self._options.early_stopping:
            return True
        return max(self._hope(each) for each in live) <= complete[enough - 1].score

    def _hope(self, live: Live) -> float:
        """What a beam would score if it ended now; nothing if it is too late for what it lacks."""
        progress, depth = self._progress(live.node), live.node.depth
        longest = self._search.complete[0].node.depth + _PATIENCE
        if progress.left and depth + progress.left > longest:
            return -math.inf
        return self.score(live.total, progress, depth)

    def _may_win(self, live: Live) -> bool:
        search, penalty = self._search, self._options.penalty
        if not search.complete:
            return True
        longest = max(self._counted(search.most - search.origin), self._source_length)
        shortest = min(self._counted(live.node.depth + 1), self._source_length)
        length = longest if penalty > 0 else shortest
        return live.total / float(length**penalty) > search.complete[0].score


def _shared_out(banks: dict[int, list[Advance]], width: int) -> list[Advance]:
    """Take the best of each bank in turn, those first that lack least; return the best first.

    Every bank gets an equal share, and what one does not fill goes to the others.
    """
    queues = [sorted(banks[left], key=_cost) for left in sorted(banks)]
    taken = list[Advance]()
    for place in range(width):
        taken += [queue[place] for queue in queues if place < len(queue)]
        if len(taken) >= width:
            break
    return sorted(taken[:width], key=_cost)


def _cost(each: Advance) -> float:
    return -(each[0].total + each[1].places)
