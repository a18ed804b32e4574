"""One token after the other, each the likeliest or drawn."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from splitformer.generation.decoding import News, Request, Vocabulary
from splitformer.generation.inspection import Inspection
from splitformer.generation.options import GenerationOptions
from splitformer.generation.rules import MOST_CANDIDATES, Rules
from splitformer.generation.seen import Seen
from splitformer.generation.selectors import (
    draw_of,
    needs_row,
    select,
    shortlist,
    uniform,
    weight_of_all,
)
from splitformer.generation.stops import Stops
from splitformer.generation.target import Target
from splitformer.generation.tokens import EndReason, Produced
from splitformer.model.drawing import place_of
from splitformer.model.stepping import RULED_OUT, Advanced
from splitformer.native import Draw

_HOPE = 8
"""How many of the likeliest tokens may have been said before one that was not, most of the time."""


_WIDER = 8
"""How many times as many tokens are asked for where they were not enough for a draw."""


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

    # Beyond 30 attributes Python looks them up slowly, but for slots.
    __slots__ = (
        *"_asks _bare _count _denied_early _denied_late _draw _drawable _drawn _ending".split(),
        *"_few _fixed _forced _hope _inspection _missed _most _options _plain".split(),
        *"_position_rules _row _rows_only _ruled_by _ruled_out _seen _steady _stops".split(),
        *"_told _tries _unwatched _vocabulary finished limit target".split(),
    )
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
        self._plain = options.plain and not (options.bans and options.alternatives)
        watched = options.reshaped or options.inspected or options.stop or vocabulary.speech
        self._unwatched = not watched  # nobody looks at tokens but their reader
        self._bare = self._plain and not (watched or options.bans)  # the likeliest is wanted
        self._seen = seen_by(options, target) if options.reshaped else None
        suppressed = sorted({*options.suppressed_tokens})
        self._denied_early = tuple(sorted({*suppressed, vocabulary.eos_id}))
        self._denied_late = tuple(suppressed)
        self._count = shortlist(options) if options.sampled else 1
        self._few = self._count if self._count <= MOST_CANDIDATES else 0  # that are ranked here
        self._row = False  # the whole row is wanted, whatever its likeliest tokens say
        self._rows_only = False  # it always is
        self._fixed: Rules | None = None  # that hold until something is said again
        self._draw = draw_of(options) if options.sampled else None
        self._ruled_by: Rules | None = None  # of which the next two tell
        self._ruled_out: tuple[int, ...] = ()  # by them, in a step that draws
        self._drawable = False  # a step can draw under them
        self._drawn = False  # the step draws the next token
        self._steady = 0  # it draws those before that index too, under the same rules
        self._hope = _HOPE  # of a greedy choice
        self._missed = 0  # choices for which the likeliest were not enough
        self._tries = 0  # of them, for the next token
        self._forced = tuple(forced)
        settled = max(options.min_new_tokens, len(target.produced) + len(self._forced))
        self._asks = settled if self._bare else sys.maxsize  # up to that index, more than the token
        room = target.max_positions - len(target.start)
        self._ending = room if vocabulary.end_at_limit else -1  # index at which the end is due
        self._inspection = Inspection(options, vocabulary) if options.inspected else None
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
        target = self.target
        output, index = request.add(target.pending, target.state), len(target.produced)
        if index < self._asks or index == self._ending:
            self._question(request, output, index)

    def take(self, answer: Advanced, first: int) -> None:
        """Take the next token: the one that is due, the likeliest or a drawn one."""
        token, short = answer.ids[first], self._bare or (self._drawn and self._unwatched)
        if short and token >= 0 and first not in answer.given:  # most often
            target, eos_id, self._tries = self.target, self._vocabulary.eos_id, 0
            target.take(token, answer.log_probabilities[first], eos_id)
            self.finished = token == eos_id or len(target.produced) >= self._most
        elif (chosen := self._chosen(answer, first)) is None:
            self._ask_again()
        else:
            self._go_on(answer, first, *chosen)

    def _chosen(self, answer: Advanced, first: int) -> tuple[int, float] | None:
        """Return the next token and its log-probability; None if it takes more to choose it."""
        if first in answer.given:  # settled beforehand
            token = self._settled
            self._forced = self._forced[1:]
            return token, answer.log_probability(first, answer.given[first])
        if self._plain or self._drawn:
            if (token := answer.ids[first]) < 0:
                return None
            self._tries = 0
            return token, answer.log_probabilities[first]
        chosen = self._choose(answer, first)
        return chosen and (chosen[0], answer.log_probability(first, chosen[1]))

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

    def _question(self, request: Request, output: int, index: int) -> None:
        """Ask what it takes to choose the token at an index from an output."""
        if self._forced or index == self._ending:
            request.given[output] = self._settled
        elif index < self._steady and self._draw is not None:
            self._ask_for_draw(request, output, index, self._draw)
        elif self._plain:
            if denied := self._denied(index):
                request.denied[output] = denied
                if self._vocabulary.exhausted(denied):
                    request.given[output] = self._vocabulary.eos_id
        else:
            self._position_rules = rules = self._rules_at(index)
            draw = self._draw
            if rules is not self._ruled_by:
                self._ruled_by, self._ruled_out = rules, rules.denied
                self._drawable = draw is not None and not (rules.shaping or rules.exhausted)
            self._drawn = self._drawable and not (self._row or self._rows_only)
            if draw is not None and self._drawn:
                self._ask_for_draw(request, output, index, draw)
                if self._seen is None and self._inspection is None and not self._tries:
                    early = rules.end_denied
                    self._steady = self._options.min_new_tokens if early else sys.maxsize
            else:
                weighs = draw is not None and needs_row(self._options)
                hope = self._hope if draw is None else None
                rules.ask(request, (output,), self._few, self._row or weighs, hope)
        if self._inspection is not None:
            self._inspection.ask(request, output)

    def _ask_for_draw(self, request: Request, output: int, index: int, draw: Draw) -> None:
        """Ask that the token at an index be drawn."""
        if denied := self._ruled_out:
            request.denied[output] = denied
        room = self._count
        if self._tries:
            room *= _WIDER**self._tries
        request.draws[output] = min(room, self._vocabulary.size or room), self._drawing(draw, index)

    def _denied(self, index: int) -> tuple[int, ...]:
        """What may not come at an index, ascending."""
        early = index < self._options.min_new_tokens
        fixed = self._denied_early if early else self._denied_late
        repeated = self._seen.completing if self._seen is not None else None
        return tuple(sorted(repeated.union(fixed))) if repeated else fixed

    @property
    def _settled(self) -> int:
        """The token that is due; where everything is ruled out, there is only the end."""
        return self._forced[0] if self._forced else self._vocabulary.eos_id

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

    @property
    def _due(self) -> bool:
        """True if the next token comes whatever is likeliest."""
        return bool(self._forced) or len(self.target.produced) == self._ending

    def _choose(self, answer: Advanced, first: int) -> tuple[int, float] | None:
        """Choose a token and return its logit; None if that takes more than was asked for."""
        if self._few and (chosen := self._choose_among(answer, first)):
            self._row = False
            return chosen
        if first not in answer.logits:
            return None
        options, position = self._options, len(self.target.produced)
        rules = self._position_rules if self._few else self._rules_at(position)
        row = rules.filtered(answer.logits[first])
        left = float(row.max()) > RULED_OUT  # where everything is ruled out, there is only the end
        self._row = False
        token = select(row, options, position) if left else self._vocabulary.eos_id
        return token, float(answer.logits[first][token])

    def _choose_among(self, answer: Advanced, first: int) -> tuple[int, float] | None:
        """Choose from the likeliest tokens; None if it takes more."""
        rules, draw = self._position_rules, self._draw
        if draw is None:
            found = answer.candidates.get(first)
            return None if found is None else rules.first(found, self._hope)
        ranking = rules.rank(answer, first, self._few, normalised=False)
        draw = self._drawing(draw, len(self.target.produced))
        if needs_row(self._options):
            row = rules.filtered(answer.logits[first])
            draw = draw._replace(total=weight_of_all(row, self._options))
        place = place_of(draw, ranking.values, ranking.ids)
        return None if place < 0 else (ranking.ids[place], ranking.before[place])

    def _drawing(self, draw: Draw, index: int) -> Draw:
        """Say where to draw the token at an index."""
        temperature, top_k, top_p, min_p, _, total = draw
        point = uniform(self._options.seed or 0, index)
        return Draw(temperature, top_k, top_p, min_p, point, total)

    def _ask_again(self) -> None:
        """Go back to where the last token was not computed, and ask for more, or for its whole row.

        The same comes out, bit for bit, so that nothing tells a step that was taken twice. Where
        few of the likeliest are often not enough for a draw, more are asked for to begin with.
        """
        self._missed, self._steady = self._missed + 1, 0
        if self._draw is None:
            self._row, self._hope = True, self._hope * 2
        elif self._drawn and self._count < self._vocabulary.size:
            self._tries += 1
            if 4 * self._missed > 4 + len(self.target.produced):
                self._count, self._tries = min(self._count * _WIDER, self._vocabulary.size), 0
        else:
            self._row = True
        self.target.state.truncate(self.target.state.length - 1)

    def _rules_at(self, index: int) -> Rules:
        early, fixed = index < self._options.min_new_tokens, self._fixed
        repeated = self._seen is not None and bool(self._seen.completing)
        if repeated or fixed is None or fixed.end_denied != early:
            fixed = Rules.at(self._options, self._vocabulary, self._seen, index)
            self._fixed = None if repeated else fixed
        return fixed


def seen_by(options: GenerationOptions, target: Target) -> Seen:
    """Return what a target holds so far, for the filters that look at it."""
    said = [*target.start, *(token.id for token in target.produced)]
    return Seen(options.unrepeated, said)
