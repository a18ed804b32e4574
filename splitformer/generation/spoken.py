"""One token after the other, for models of speech."""

from __future__ import annotations

from splitformer.errors import UnimplementedError, Violation
from splitformer.generation.decoding import Request, Vocabulary
from splitformer.generation.options import DecodingMode, DraftMode, GenerationOptions
from splitformer.generation.selectors import select
from splitformer.generation.sequential import Sequential
from splitformer.generation.speech import SpeechRules
from splitformer.model.stepping import RULED_OUT, Advanced


class Spoken(Sequential):
    """`Sequential`, except that a target keeps to `SpeechRules` wherever they bear on it."""

    @property
    def _rules(self) -> SpeechRules | None:
        """The rules, if they bear on the next token and it is not settled."""
        rules, target = self._vocabulary.speech, self.target
        if rules is None or self._due is not None:
            return None
        return rules if rules.bear_on(target.start, len(target.produced)) else None

    def ask(self, request: Request) -> None:
        """Ask for the row of what was not computed yet."""
        self._plain = self._options.plain and self._rules is None
        super().ask(request)

    def _question(self, request: Request, output: int, index: int) -> None:
        super()._question(request, output, index)
        if self._rules is not None:
            request.logits.add(output)

    def _choose(self, answer: Advanced, first: int) -> tuple[int, float] | None:
        if self._rules is None:
            return super()._choose(answer, first)
        produced = [token.id for token in self.target.produced]
        row = self._rules_at(len(produced)).filtered(answer.logits[first])
        row = self._rules.apply(row, self.target.start, produced)
        left = float(row.max()) > RULED_OUT  # where everything is ruled out, there is only the end
        token = select(row, self._options, len(produced)) if left else self._vocabulary.eos_id
        return token, float(answer.logits[first][token])


def check_spoken(options: GenerationOptions, vocabulary: Vocabulary) -> None:
    """UnimplementedError OPTION_NOT_OFFERED if a model of speech is asked to decode otherwise."""
    for field, value, harmless in (
        ("glossary", list(options.glossary), not options.glossary),
        ("num_beams", options.beams, options.beams <= 1),
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
