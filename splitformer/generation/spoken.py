"""One token after the other, and beam search, for models of speech."""

from __future__ import annotations

from functools import partial

import numpy as np

from splitformer.errors import UnimplementedError, Violation
from splitformer.generation.beam import Beam
from splitformer.generation.choosing import Asking
from splitformer.generation.decoding import Vocabulary
from splitformer.generation.hypotheses import Live
from splitformer.generation.options import DecodingMode, DraftMode, GenerationOptions
from splitformer.generation.rules import Ranking, Rules
from splitformer.generation.selectors import select
from splitformer.generation.sequential import Sequential
from splitformer.generation.speech import SpeechRules
from splitformer.model.stepping import RULED_OUT, Advanced
from splitformer.native import Question


class Spoken(Sequential):
    """`Sequential`, except that a target keeps to `SpeechRules` wherever they bear on it."""

    @property
    def _rules(self) -> SpeechRules | None:
        """The rules, if they bear on the next token."""
        rules, target = self._vocabulary.speech, self.target
        bear = rules is not None and rules.bear_on(target.start, len(target.produced))
        return rules if bear else None

    def _asking_at(self, index: int) -> Asking:
        asking = super()._asking_at(index)
        if asking.settled >= 0 or self._rules is None:
            return asking
        return self._chooser.whole_row(index, self._seen)

    def _choose(self, answer: Advanced, first: int, rules: Rules) -> tuple[int, float] | None:
        if self._rules is None:
            return super()._choose(answer, first, rules)
        produced = [token.id for token in self.target.produced]
        row = rules.filtered(answer.logits[first])
        row = self._rules.apply(row, self.target.start, produced)
        left = float(row.max()) > RULED_OUT  # where everything is ruled out, there is only the end
        token = select(row, self._options, len(produced)) if left else self._vocabulary.eos_id
        return token, float(answer.logits[first][token])


class SpokenBeam(Beam):
    """`Beam`, except that every hypothesis keeps to `SpeechRules` wherever they bear on it."""

    def _question(self, rules: Rules) -> Question:
        row = self._spoken is not None
        return rules.question(2 * self.width, row)

    def _as_found(self, rules: Rules) -> bool:
        return self._spoken is None and super()._as_found(rules)

    def _rankings(self, answer: Advanced, first: int) -> list[Ranking]:
        spoken = self._spoken
        if spoken is None:
            return super()._rankings(answer, first)
        beams = enumerate(zip(self._search.live, self._rules, strict=True), first)
        return [self._ranked(spoken, live, rules, answer, i) for i, (live, rules) in beams]

    @property
    def _spoken(self) -> SpeechRules | None:
        """The rules, if they bear on the next tokens of the beams, which are equally long."""
        rules, search = self._vocabulary.speech, self._search
        produced = search.origin + search.live[0].node.depth
        bear = rules is not None and rules.bear_on(self.target.start, produced)
        return rules if bear else None

    def _ranked(
        self, spoken: SpeechRules, live: Live, rules: Rules, answer: Advanced, output: int
    ) -> Ranking:
        """Rank one beam's next tokens."""
        produced = [token.id for token in self._search.before]
        produced += [node.id for node in live.node.after(0)]
        keep = partial(spoken.apply, start=self.target.start, produced=produced)
        row = answer.logits[output].astype(np.float64) - answer.log_sums[output]
        return rules.rank_row(row, 2 * self.width, keep)


def check_spoken(options: GenerationOptions, vocabulary: Vocabulary) -> None:
    """UnimplementedError OPTION_NOT_OFFERED if a model of speech is asked to decode otherwise."""
    for field, value, harmless in (
        ("glossary", list(options.glossary), not options.glossary),
        ("mode", options.mode, options.mode is DecodingMode.LOOP),
        ("draft", options.draft, options.draft in (None, DraftMode.OFF)),
    ):
        if vocabulary.speech is not None and not harmless:
            rule = f"is not offered for models of speech, got {value}"
            raise UnimplementedError(
                f"options.{field}: {rule}",
                reason="OPTION_NOT_OFFERED",
                violations=(Violation(f"options.{field}", rule),),
            )
