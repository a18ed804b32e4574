"""What keys and values in 16 bits do to translations: a model decoded with them and without.

Decoders with weights in 8 bits hold keys and values as f16, those in fp32 as f32. No flag of a
service asks for f32 beside 8 bits, so both are decoded here, in this process: the same kernels over
the same memories (rounded to f16, as the wire is by default), greedily, what the model says by
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.chrf import CHRF

from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Memory
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.native import Cache
from training.corpus import Example
from training.recipe import LANGUAGES
from training.scores import score_language

CACHES: tuple[Cache, ...] = ("f16", "f32")
ROWS = 64
"""Sequences decoded side by side."""


class Halves:
    """Both halves of a model in int8, with a decoder for each way to hold keys and values.

    Args:
        folder: Of the model.
        threads: Of each half.
    """

    def __init__(self, folder: Path, threads: int = 2) -> None:
        self._checkpoint = Checkpoint(folder)
        encoder, decoder = (self._checkpoint.half(half, "int8") for half in ("encoder", "decoder"))
        self._encoder = NativeEncoder(encoder, "int8", threads)
        self._decoders = {
            cache: NativeDecoder(decoder, "int8", threads, cache=cache) for cache in CACHES
        }

    def close(self) -> None:
        """Let the packed weights go."""
        self._encoder.close()
        for decoder in self._decoders.values():
            decoder.close()

    def memories(self, texts: Sequence[str]) -> list[Memory]:
        """Encode texts, to what comes over the wire."""
        sources = [[piece.id for piece in self._checkpoint.encode_source(text)] for text in texts]
        return [
            memory.astype(np.float16).astype(np.float32) for memory in self._encoder.encode(sources)
        ]

    def translate(self, memories: Sequence[Memory], language: str, cache: Cache) -> list[str]:
        """Translate greedily, `ROWS` at a time."""
        found = []
        for first in range(0, len(memories), ROWS):
            found += self._decoded(memories[first : first + ROWS], language, cache)
        return found

    def _decoded(self, memories: Sequence[Memory], language: str, cache: Cache) -> list[str]:
        description, decoder = self._checkpoint.description, self._decoders[cache]
        longest = description.architecture.max_positions - 1
        live = {i: decoder.begin(memory) for i, memory in enumerate(memories)}
        tokens = {i: [*description.languages.starts[language]] for i in live}
        texts: dict[int, list[int]] = {i: [] for i in live}
        while live:
            chosen = decoder.advance(
                [tokens[i] for i in live],
                list(live.values()),
                description.never_generated,
                log_probabilities=False,
            ).ids
            for i, token in zip(list(live), chosen, strict=True):
                tokens[i] = [token]
                if token == description.eos_id:
                    del live[i]
                    continue
                texts[i].append(token)
                if len(texts[i]) >= min(longest, 2 * len(memories[i]) + 20):
                    del live[i]
        return [self._checkpoint.tokenizer.decode(ids) for ids in texts.values()]


def compare(folder: Path, examples: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """Translate examples with keys and values in 16 bits and in 32.

    Returns:
        By language: the number of `strings`, how many translations are `differing`, chrF2 of those
        in f16 with those in f32 as references (`chrf_to_f32`), and of both, as the mean over the
        sources (`chrf`).
    """
    halves = Halves(folder)
    memories = halves.memories([example.english for example in examples])
    found: dict[str, dict[str, Any]] = {}
    for language in LANGUAGES:
        used = [i for i, example in enumerate(examples) if language in example.translations]
        chosen = [examples[i] for i in used]
        texts = {c: halves.translate([memories[i] for i in used], language, c) for c in CACHES}
        found[language] = {
            "strings": len(used),
            "differing": sum(map(str.__ne__, *texts.values())),
            "chrf_to_f32": round(CHRF().corpus_score(texts["f16"], [texts["f32"]]).score, 2),
            "chrf": {c: score_language(chosen, texts[c], language).chrf for c in CACHES},
        }
    halves.close()
    return found


def lines(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields one line per number."""
    for language, result in found.items():
        yield f"caches.{language}.differing {result['differing']} of {result['strings']}"
        yield f"caches.{language}.chrf_to_f32 {result['chrf_to_f32']:.1f}"
        for cache, score in result["chrf"].items():
            yield f"caches.{language}.chrf.{cache} {score:.2f}"
