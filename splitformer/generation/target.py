"""A target: what has been said over one memory, and what the decoder has still to be told.

A target goes in shifted right by one: what it has said so far, behind its start tokens, is the
input, and the last row's logits decide the next token. `Target` keeps both sides in step, so that
whatever has not been computed yet (a prefix, a forced token, the last token) is simply the next
input.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from splitformer.generation.hypotheses import Search
from splitformer.generation.tokens import Details, Produced
from splitformer.model.cache import DecoderState
from splitformer.model.tokenizer import Detokenizer, SourcePiece


@dataclass(eq=False, slots=True)
class Target:
    """One target over one memory.

    Attributes:
        start: Decoder input before the first produced token: start or language token, then the
            caller's prefix. At least one.
        state: Keys and values.
        detokenizer: Turns produced ids into text; the prefix has been through it.
        max_positions: Longest decoder input.
        produced: Tokens so far, the prefix and the end token not among them.
        end: The produced end token, once there is one.
        source: The source as the encoder saw it, one piece per row of the memory; empty if that is
            not known.
        source_text: Its text; empty if that is not known.
        forced: How many of the start tokens count as said in scores of a beam search: those that
            it is made to begin with, unless the caller gave a prefix.
        search: The beam search that found its last tokens, or was looking for more.
    """

    start: tuple[int, ...]
    state: DecoderState
    detokenizer: Detokenizer
    max_positions: int
    produced: list[Produced] = field(default_factory=list)
    end: Produced | None = None
    source: tuple[SourcePiece, ...] = ()
    source_text: str = ""
    forced: int = 0
    search: Search | None = None

    @property
    def pending(self) -> list[int]:
        """Inputs that have not been through the decoder yet; empty only once it has ended."""
        produced, done = self.produced, self.state.length
        known = done - len(self.start)
        if known >= 0:
            if known == len(produced) - 1:  # the usual case, and a short one
                return [produced[known].id]
            return [token.id for token in produced[known:]]
        return [*self.start[done:], *(token.id for token in self.produced)]

    @property
    def finished_search(self) -> Search | None:
        """The beam search that found its last tokens and is over."""
        search = self.search
        return search if search and search.over and search.made(self.produced) else None

    def take(
        self, token: int, log_probability: float, eos_id: int, details: Details | None = None
    ) -> None:
        """Go on by one token, or end with it if it is the end token."""
        if token == eos_id:
            self.end = Produced(token, self.detokenizer.finish(), log_probability, details)
        else:  # Produced(...), but in half the time
            fields = (token, self.detokenizer.add(token), log_probability, details)
            self.produced.append(tuple.__new__(Produced, fields))

    def rewind(self, index: int, detokenizer: Detokenizer) -> None:
        """Take back all tokens from `index` on, and the end.

        Args:
            index: The token that comes next.
            detokenizer: Has seen what stays.
        """
        del self.produced[index:]
        self.end, self.detokenizer = None, detokenizer
        self.state.truncate(min(self.state.length, len(self.start) + index - 1))

    @property
    def text(self) -> str:
        """The text so far."""
        ending = self.end.text if self.end else ""
        return "".join(token.text for token in self.produced) + ending
