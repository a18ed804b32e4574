"""The held-out strings: reading them, choosing a sample, and a cheap probe for training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from sacrebleu.metrics.chrf import CHRF

from splitformer.model import Transformer
from training.corpus import Example
from training.curve import CHRF_COLUMNS
from training.recipe import LANGUAGES, Genre
from training.split import bucket
from training.tokenizer import Tokenizer
from training.train import Probe
from training.translate import translate


def read_examples(path: Path) -> list[Example]:
    """Reads the examples of a held-out part."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Example(english, source, Genre(genre), t) for english, source, genre, t in rows]


def sample(examples: Sequence[Example], share: float) -> list[Example]:
    """Returns about that share of the examples, always the same ones."""
    return [e for e in examples if bucket(e.english, "sample") < 1000 * share]


def chrf_probe(tokenizer: Tokenizer, examples: Sequence[Example], strings: int) -> Probe:
    """Returns a cheap measure: chrF by column on some fixed strings that have all languages."""
    complete = [e for e in examples if len(e.translations) == len(LANGUAGES)]
    chosen = sorted(complete, key=lambda e: (bucket(e.english, "probe"), e.english))[:strings]

    def measure(model: Transformer) -> dict[str, float]:
        scores = {}
        for language in LANGUAGES:
            outputs = translate(model, tokenizer, [e.english for e in chosen], language)
            references = [[e.translations[language] for e in chosen]]
            scores[f"chrf_{language}"] = CHRF().corpus_score(outputs, references).score
        return scores

    return Probe(CHRF_COLUMNS, measure)
