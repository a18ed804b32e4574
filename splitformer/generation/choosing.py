"""How one sequence's next token is asked for, and chosen where the step does not choose it."""

from __future__ import annotations

import sys
from typing import NamedTuple

from splitformer.generation.decoding import Vocabulary
from splitformer.generation.inspection import Inspection
from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import MOST_CANDIDATES, Rules
from splitformer.generation.seen import Seen
from splitformer.generation.selectors import draw_of, needs_row, select, weight_of_all
from splitformer.model.drawing import place_of, placed
from splitformer.model.stepping import RULED_OUT, Advanced
from splitformer.native import Question

_HOPE = 8
"""How many of the likeliest tokens may have been said before one that was not, most of the time."""

_WIDER = 8
"""How many times as many tokens are asked for where they were not enough for a draw."""


class Asking(NamedTuple):
    """What is asked to get a token, and how it is told from the answer.

    Attributes:
        question: What is asked; None: the likeliest token is all it takes.
        until: It holds for all tokens before that index.
        rules: By which the token is chosen from the answer; None: it is the one the step chose.
        settled: The token, whatever the step chooses; -1: that is open.
    """

    question: Question | None
    until: int
    rules: Rules | None = None
    settled: int = -1


NEVER_ASKED = Asking(None, 0)


class Chooser:
    """Asks for the tokens of one sequence, and chooses them.

    Args:
        options: How to choose.
        vocabulary: The model's.
        first: Position whose output decides the first token.
        inspection: What is wanted beside the token.

    Attributes:
        plain: The likeliest of the allowed tokens is taken as the model has it.
        rows_only: What the step does not choose is chosen from whole rows.
    """

    def __init__(
        self,
        options: GenerationOptions,
        vocabulary: Vocabulary,
        first: int,
        inspection: Inspection | None,
    ) -> None:
        self.plain = options.plain and not (options.bans and options.alternatives)
        self.rows_only = False
        self._options, self._vocabulary, self._first = options, vocabulary, first
        self._suppressed = frozenset(options.suppressed_tokens)
        self._denied_late = tuple(sorted(self._suppressed))
        self._denied_early = tuple(sorted({*self._suppressed, vocabulary.eos_id}))
        self._candidates = 0 if inspection is None else inspection.candidates
        self._attention = inspection is not None and inspection.attention
        self._draw = draw_of(options) if options.sampled else None
        count = 1 if self._draw is None else self._draw.among
        self._few = count if count <= MOST_CANDIDATES else 0  # that are ranked here
        self._hope = _HOPE  # of a greedy choice
        self._missed = 0  # tokens for which what had been asked for was not enough, however often
        self._missed_at = -1  # the last of them
        self._tries = 0  # for that one, of draws
        self._row = False  # its whole row is wanted

    def asking(self, index: int, seen: Seen | None, before: Asking) -> Asking:
        """Return what to ask for the token at an index.

        Args:
            index: Which token.
            seen: What was said before it; None: that does not matter.
            before: What was asked for another token.
        """
        if self.plain:
            return self._likeliest(index, seen, before)
        rules = self._rules(index, seen, before.rules)
        missed = index == self._missed_at
        if self._draw is not None and not (
            self.rows_only or (missed and self._row) or rules.shaping or rules.exhausted
        ):
            return self._drawn(index, seen, before, rules.denied)
        hope = self._hope if self._draw is None else None
        row = (missed and self._row) or (self._draw is not None and needs_row(self._options))
        question, moved = before.question, len(rules.penalised)
        kept = rules is before.rules and hope is not None and moved > hope
        if question is None or not kept or question.logits != row:
            few, told = 0 if self.rows_only else self._few, (self._candidates, self._attention)
            question = rules.question(few, row, hope, *told, question)
        return Asking(question, index + 1, rules)

    def whole_row(self, index: int, seen: Seen | None) -> Asking:
        """Return what to ask where nothing but the whole row decides."""
        rules = Rules.at(self._options, self._vocabulary, seen, index)
        question = Question((), self._candidates, True, -1, self._attention)
        return Asking(question, index + 1, rules)

    def settled(self, token: int, index: int, denied: tuple[int, ...] = ()) -> Asking:
        """Return what to ask where a token is due, whatever is likely."""
        question = Question(denied, self._candidates, False, token, self._attention)
        return Asking(question, index + 1, None, token)

    def choose(
        self, answer: Advanced, output: int, index: int, rules: Rules
    ) -> tuple[int, float] | None:
        """Choose a token and return its logit; None if that takes more than was asked for."""
        if self._few and not self.rows_only:
            chosen = self._among(answer, output, index, rules)
            if chosen is not None:
                return chosen
        if output not in answer.logits:
            return None
        row = rules.filtered(answer.logits[output])
        left = float(row.max()) > RULED_OUT  # where everything is ruled out, there is only the end
        token = select(row, self._options, index) if left else self._vocabulary.eos_id
        return token, float(answer.logits[output][token])

    def missed(self, index: int, drawn: bool) -> None:
        """Ask for more from now on: what was asked was not enough for the token at an index.

        Where few of the likeliest are often not enough for a draw, all tries begin with more.

        Args:
            index: Which token.
            drawn: The step should have drawn it.
        """
        if index != self._missed_at:
            self._missed_at, self._tries, self._row = index, 0, False
        self._missed += 1
        if self._draw is None:
            self._row, self._hope = True, self._hope * 2
        elif drawn and self._draw.among < self._vocabulary.size:
            self._tries += 1
            if 4 * self._missed > 4 + index:
                among = min(self._draw.among * _WIDER, self._vocabulary.size)
                self._draw, self._tries = self._draw._replace(among=among), 0
        else:
            self._row = True

    def _rules(self, index: int, seen: Seen | None, known: Rules | None) -> Rules:
        """Return what holds at an index: what is known, if that still does."""
        options = self._options
        if known is not None and seen is not None and not seen.completing:
            early = index < options.min_new_tokens
            same = known.banned == self._suppressed and known.end_denied == early
            if same and (not options.penalises or known.penalised is seen.ids):
                return known
        return Rules.at(options, self._vocabulary, seen, index)

    def _likeliest(self, index: int, seen: Seen | None, before: Asking) -> Asking:
        """Ask for the likeliest token that is allowed."""
        early, question = index < self._options.min_new_tokens, before.question
        denied = self._denied_early if early else self._denied_late
        if seen is not None and (repeated := seen.completing):
            denied = tuple(sorted(repeated.union(denied)))
        if self._vocabulary.exhausted(denied):
            return self.settled(self._vocabulary.eos_id, index, denied)
        if not (denied or self._candidates or self._attention):
            return Asking(None, self._until(index, seen))
        asked = denied, self._candidates, False, -1, self._attention
        if question is None or not question.asks(*asked):
            question = Question(*asked)
        return Asking(question, self._until(index, seen))

    def _drawn(
        self, index: int, seen: Seen | None, before: Asking, denied: tuple[int, ...]
    ) -> Asking:
        """Ask the step to draw."""
        assert self._draw is not None
        draw, known, until = self._draw, before.question, self._until(index, seen)
        if index == self._missed_at and self._tries:
            among, until = draw.among * _WIDER**self._tries, index + 1
            draw = draw._replace(among=among)
        if 0 < self._vocabulary.size < draw.among:
            draw = draw._replace(among=self._vocabulary.size)
        asked = denied, self._candidates, False, -1, self._attention, draw
        if known is None or not known.asks(*asked):
            known = Question(*asked, self._options.seed or 0, self._first)
        return Asking(known, until)

    def _until(self, index: int, seen: Seen | None) -> int:
        """Index up to which the same is ruled out as at another one."""
        if seen is not None:
            return index + 1
        early = index < self._options.min_new_tokens
        return self._options.min_new_tokens if early else sys.maxsize

    def _among(
        self, answer: Advanced, output: int, index: int, rules: Rules
    ) -> tuple[int, float] | None:
        """Choose from the likeliest tokens; None if it takes more."""
        if self._draw is None:
            found = answer.candidates.get(output)
            return None if found is None else rules.first(found, self._hope)
        ranking = rules.rank(answer, output, self._few, normalised=False)
        draw = placed(self._draw, self._options.seed or 0, index)
        if needs_row(self._options):
            row = rules.filtered(answer.logits[output])
            draw = draw._replace(total=weight_of_all(row, self._options))
        place = place_of(draw, ranking.values, ranking.ids)
        return None if place < 0 else (ranking.ids[place], ranking.before[place])
