"""Greedy translation of many texts at once, for evaluation and the model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from splitformer.model import DecoderState, Transformer
from training.data import pad
from training.tokenizer import EOS, PAD, UNKNOWN, Tokenizer, language_ids

ROWS = 64
"""Sequences decoded side by side."""


@dataclass(slots=True)
class _Sequence:
    """One translation under way."""

    index: int
    state: DecoderState
    limit: int
    pending: int
    pieces: list[int] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return self.pending == EOS or len(self.pieces) >= self.limit

    def accept(self, piece: int) -> None:
        self.pending = piece
        if piece != EOS:
            self.pieces.append(piece)


def translate(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], language: str
) -> list[str]:
    """Returns the greedy translation of every text.

    Args:
        model: trained model.
        tokenizer: the tokenizer it was trained with.
        texts: English texts; one beyond the model's positions is cut.
        language: target language code.

    Raises:
        ValueError: the model has no such target language.
    """
    languages = language_ids()
    if language not in languages:
        raise ValueError(f"language: must be one of {', '.join(languages)}, is {language!r}")
    longest = model.config.max_positions
    sources = [[*pieces[: longest - 1], EOS] for pieces in tokenizer.encode(list(texts))]
    never = [PAD, UNKNOWN, *languages.values()]
    outputs = decode_greedily(model, sources, languages[language], never)
    return [tokenizer.decode(pieces) for pieces in outputs]


def decode_greedily(
    model: Transformer, sources: Sequence[list[int]], first: int, never: Sequence[int]
) -> list[list[int]]:
    """Returns the greedy target of every source, without EOS.

    Args:
        model: trained model.
        sources: ids, EOS included.
        first: the decoder's first token.
        never: ids that are no text.
    """
    results: list[list[int]] = [[]] * len(sources)
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    with torch.inference_mode():
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            for sequence in _decode(model, [sources[i] for i in rows], first, never):
                results[rows[sequence.index]] = sequence.pieces
    return results


def _decode(
    model: Transformer, sources: list[list[int]], first: int, never: Sequence[int]
) -> Iterator[_Sequence]:
    """Yields the sequences of one batch as they finish."""
    live = _begin(model, sources, first)
    while live:
        logits = model.step([[s.pending] for s in live], [s.state for s in live])  # (B, V)
        logits[:, list(never)] = -torch.inf
        for sequence, piece in zip(live, logits.argmax(-1).tolist(), strict=True):
            sequence.accept(piece)
        yield from (s for s in live if s.finished)
        live = [s for s in live if not s.finished]


def _begin(model: Transformer, sources: list[list[int]], first: int) -> list[_Sequence]:
    lengths = torch.tensor([len(source) for source in sources])
    memory = model.encode(pad(sources), lengths)  # (B, S, D)
    longest = model.config.max_positions - 1
    return [
        _Sequence(i, model.begin(memory[i, :n]), min(2 * n + 20, longest), first)
        for i, n in enumerate(lengths.tolist())
    ]
