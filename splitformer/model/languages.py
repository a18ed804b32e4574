"""How a model is told its languages: around the source, or by the target's first tokens.

Some models hear the target language with the source, so that a memory is bound to it; others hear
it from the decoder's first tokens, so that one memory serves all languages. Both are data here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Frame:
    """What the encoder is given around a source.

    Attributes:
        text: Written before the source's text and tokenised with it.
        before: Ids before the source's own.
        after: Ids behind them.
    """

    text: str = ""
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()

    def inside(self, outer: Frame) -> Frame:
        """Return both frames as one, `outer` outermost."""
        return Frame(outer.text + self.text, outer.before + self.before, self.after + outer.after)


@dataclass(frozen=True, slots=True)
class Languages:
    """The languages of a model; "" stands for a request that names none, where that is allowed.

    Attributes:
        sources: Language of a source to its frame.
        starts: Target language to the decoder's first input, at least one id.
        bindings: Target language to one more frame; empty where the decoder alone is told.
        marker: How a source may name its target language itself, as in ">>{}<<"; empty: not at all.
    """

    sources: Mapping[str, Frame]
    starts: Mapping[str, tuple[int, ...]]
    bindings: Mapping[str, Frame] = field(default_factory=dict)
    marker: str = ""

    @property
    def on_decoder(self) -> bool:
        """True if the target language is chosen on the decoder's side."""
        return not self.bindings

    @property
    def source(self) -> str:
        """The one language of all sources; empty if there is none or more."""
        named = list(filter(None, self.sources))
        return named[0] if len(named) == 1 else ""

    @property
    def targets(self) -> tuple[str, ...]:
        """Target languages, "" not among them."""
        return tuple(filter(None, self.starts if self.on_decoder else self.bindings))

    def marked(self, text: str) -> str:
        """Return the target language that a text itself begins with; empty: none that is known."""
        opening, _, closing = self.marker.partition("{}")
        if not opening or not text.startswith(opening):
            return ""
        code, found, _ = text[len(opening) :].partition(closing)
        return code if found and code in self.bindings else ""
