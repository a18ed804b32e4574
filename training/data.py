"""Tokenised corpus arrays and the batches made from them.

A batch holds English sources and, for each, its translations into several languages: the encoder
runs once per source however many targets it has. Batches are a pure function of (seed, round), so
that a resumed run sees exactly what an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.corpus import Example
from training.recipe import LANGUAGES, Genre
from training.tokenizer import EOS, PAD, Tokenizer, language_ids

Array = npt.NDArray[Any]
_GENRES = tuple(Genre)
GROUP = 32
"""Batches have a multiple of so many sources, the last of them empty ones that no target has:
oneDNN compiles matrix products for every shape, which was a tenth of the time of a step."""


@dataclass(frozen=True, slots=True)
class TokenArrays:
    """Ragged token arrays of one part of the corpus.

    Attributes:
        source_tokens: pieces and EOS of every source, end to end, uint16.
        source_offsets: where each source starts, and the end of the last, (N + 1,).
        source_genres: index into ``Genre`` of each source, (N,).
        target_tokens: pieces and EOS of every target, end to end, uint16.
        target_offsets: where each target starts, and the end of the last, (M + 1,).
        target_sources: the source each target translates, ascending, (M,).
        target_languages: index into ``LANGUAGES`` of each target, (M,).
    """

    source_tokens: Array
    source_offsets: Array
    source_genres: Array
    target_tokens: Array
    target_offsets: Array
    target_sources: Array
    target_languages: Array

    @classmethod
    def load(cls, path: Path) -> TokenArrays:
        """Reads what ``save`` wrote."""
        with np.load(path) as archive:
            return cls(**{name: archive[name] for name in cls.__slots__})

    def save(self, path: Path) -> None:
        """Writes all arrays into one ``.npz`` file."""
        np.savez(path, **{name: getattr(self, name) for name in self.__slots__})

    @property
    def source_lengths(self) -> Array:
        """Tokens of each source, EOS included, (N,)."""
        return np.diff(self.source_offsets)

    @property
    def target_lengths(self) -> Array:
        """Tokens of each target, EOS included, (M,)."""
        return np.diff(self.target_offsets)

    def source(self, index: int) -> Array:
        """Returns the tokens of one source."""
        return self.source_tokens[self.source_offsets[index] : self.source_offsets[index + 1]]

    def target(self, index: int) -> Array:
        """Returns the tokens of one target."""
        return self.target_tokens[self.target_offsets[index] : self.target_offsets[index + 1]]


def tokenize(examples: list[Example], tokenizer: Tokenizer) -> TokenArrays:
    """Tokenises examples; every sequence ends in EOS."""
    targets = [
        (index, LANGUAGES.index(language), text)
        for index, example in enumerate(examples)
        for language, text in example.translations.items()
    ]
    source_tokens, source_offsets = _ragged(tokenizer.encode([e.english for e in examples]))
    target_tokens, target_offsets = _ragged(tokenizer.encode([text for *_, text in targets]))
    return TokenArrays(
        source_tokens,
        source_offsets,
        np.array([_GENRES.index(example.genre) for example in examples], np.int8),
        target_tokens,
        target_offsets,
        np.array([index for index, *_ in targets], np.int32),
        np.array([language for _, language, _ in targets], np.int8),
    )


def _ragged(sequences: list[list[int]]) -> tuple[Array, Array]:
    lengths = [len(sequence) + 1 for sequence in sequences]
    flat = [piece for sequence in sequences for piece in [*sequence, EOS]]
    return np.array(flat, np.uint16), np.concatenate([[0], np.cumsum(lengths)])


@dataclass(frozen=True, slots=True)
class Batch:
    """One training step's worth of sequences, padded.

    Attributes:
        source: (B, S) int64.
        lengths: tokens of each source, (B,) int64.
        rows: the source row of each target, (N,) int64, N >= B.
        target: decoder inputs, language token first, (N, T) int64.
        labels: what the decoder should say, padding where nothing is asked, (N, T) int64.
    """

    source: Tensor
    lengths: Tensor
    rows: Tensor
    target: Tensor
    labels: Tensor

    @property
    def tokens(self) -> int:
        """Target tokens that count."""
        return int((self.labels != PAD).sum())


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How batches are drawn.

    Attributes:
        tokens: padded target tokens per micro-batch.
        longest: sequences with more tokens than this are left out.
        pool: sources sorted by length together; larger means less padding, less mixing.
        seed: seeds the order.
        keep: share of each genre's sources that a round takes.
        languages: share of each language's targets that a round takes, beside what balances them.
    """

    tokens: int = 1536
    longest: int = 100
    pool: int = 8192
    seed: int = 1
    keep: tuple[tuple[Genre, float], ...] = (
        (Genre.INTERFACE, 1.0),
        (Genre.HELP, 1.0),
        (Genre.DIALOGUE, 1.0),
        (Genre.EVERYDAY, 0.7),
        (Genre.GAME, 0.8),
        (Genre.MANUAL, 0.6),
    )
    languages: tuple[tuple[str, float], ...] = (
        ("ja", 1.25),
        ("de", 1.25),
        ("fr", 0.9),
        ("es", 0.9),
    )


class Batcher:
    """Draws rounds of batches; one round is about one pass over the corpus."""

    def __init__(self, arrays: TokenArrays, settings: BatchSettings) -> None:
        """Finds the usable targets and the share of each language that balances them."""
        self._arrays = arrays
        self._settings = settings
        longest = settings.longest
        source_fits = arrays.source_lengths <= longest
        self._usable = (arrays.target_lengths <= longest) & source_fits[arrays.target_sources]
        counts = np.bincount(arrays.target_languages[self._usable], minlength=len(LANGUAGES))
        present = counts[counts > 0]
        self._balance = present.min() / np.maximum(counts, 1) if len(present) else counts
        share = dict(settings.languages)
        self._balance = self._balance * [share.get(language, 1.0) for language in LANGUAGES]
        keep = dict(settings.keep)
        self._genre_share = np.array([keep.get(genre, 1.0) for genre in _GENRES])
        self._target_sizes: list[int] = arrays.target_lengths.tolist()
        self._source_sizes: list[int] = arrays.source_lengths.tolist()

    def round(self, number: int) -> Iterator[Batch]:
        """Yields the batches of a round, always the same for the same number."""
        for sources, targets in self.plan(number):
            yield self.batch(sources, targets)

    def plan(self, number: int) -> list[tuple[list[int], list[list[int]]]]:
        """Returns a round's batches as indices: sources, and the targets of each."""
        random = np.random.default_rng([self._settings.seed, number])
        chosen = self._chosen_targets(random)
        sources = random.permutation(self._arrays.source_genres.size)
        plan: list[tuple[list[int], list[list[int]]]] = []
        for start in range(0, sources.size, self._settings.pool):
            pool = sources[start : start + self._settings.pool]
            batches = self._pack([(s, chosen[s]) for s in pool.tolist() if s in chosen])
            plan += [batches[i] for i in random.permutation(len(batches))]
        return plan

    def _chosen_targets(self, random: np.random.Generator) -> dict[int, list[int]]:
        """Draws targets; returns them by their sources, which have at least one each."""
        arrays = self._arrays
        source_kept = (
            random.random(arrays.source_genres.size) < (self._genre_share[arrays.source_genres])
        )
        balance = self._balance[arrays.target_languages]
        drawn = random.random(arrays.target_sources.size) < balance
        (targets,) = np.nonzero(self._usable & drawn & source_kept[arrays.target_sources])
        sources, starts = np.unique(arrays.target_sources[targets], return_index=True)
        ends, flat = [*starts[1:].tolist(), len(targets)], targets.tolist()
        found = zip(sources.tolist(), starts.tolist(), ends, strict=True)
        return {source: flat[start:end] for source, start, end in found}

    def _pack(
        self, candidates: list[tuple[int, list[int]]]
    ) -> list[tuple[list[int], list[list[int]]]]:
        """Sorts by length and cuts where the padded target would outgrow the batch."""
        sizes, source_sizes = self._target_sizes, self._source_sizes
        measured = [
            (max([sizes[t] for t in targets]), source_sizes[s], s, targets)
            for s, targets in candidates
        ]
        batches: list[tuple[list[int], list[list[int]]]] = []
        rows = 0
        for width, _, source, targets in sorted(measured):
            rows += len(targets)
            if not batches or rows * width > self._settings.tokens:
                batches.append(([], []))
                rows = len(targets)
            batches[-1][0].append(source)
            batches[-1][1].append(targets)
        return batches

    def batch(self, sources: list[int], targets: list[list[int]]) -> Batch:
        """Builds one planned batch."""
        arrays = self._arrays
        rows = [row for row, group in enumerate(targets) for _ in group]
        flat = [target for group in targets for target in group]
        languages = list(language_ids().values())
        starts = [[languages[arrays.target_languages[target]]] for target in flat]
        labels = [arrays.target(target) for target in flat]
        inputs = [np.append(s, t[:-1]) for s, t in zip(starts, labels, strict=True)]
        source_tokens = [arrays.source(source) for source in sources]
        source_tokens += [np.array([EOS])] * (-len(sources) % GROUP)
        lengths = torch.tensor([len(tokens) for tokens in source_tokens])
        return Batch(pad(source_tokens), lengths, torch.tensor(rows), pad(inputs), pad(labels))


def pad(sequences: Sequence[Array | list[int]]) -> Tensor:
    """Stacks sequences into (rows, longest), int64, filled with padding."""
    stacked = np.full((len(sequences), max(map(len, sequences))), PAD, np.int64)
    for row, sequence in enumerate(sequences):
        stacked[row, : len(sequence)] = sequence
    return torch.from_numpy(stacked)
