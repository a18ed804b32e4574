"""Measures translation quality on held-out text, by language and source.

chrF: Popović 2015; BLEU: Papineni et al. 2002; both as sacrebleu computes them (Post 2018).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from splitformer.model import Transformer
from training.corpus import Example
from training.curve import CHRF_COLUMNS
from training.recipe import LANGUAGES, Genre
from training.split import bucket
from training.tokenizer import Tokenizer
from training.train import Probe
from training.translate import translate

# "char" needs no dictionary; ja-mecab would.
_BLEU_TOKENIZERS = {"ja": "char", "zh_CN": "zh"}


@dataclass(frozen=True, slots=True)
class Score:
    """Quality on a set of strings.

    Attributes:
        strings: how many strings were translated.
        chrf: chrF2, 0..100.
        bleu: BLEU, 0..100.
    """

    strings: int
    chrf: float
    bleu: float


@dataclass(frozen=True, slots=True)
class LanguageResult:
    """Quality in one language; signatures say how it was computed."""

    overall: Score
    by_source: dict[str, Score]
    chrf_signature: str
    bleu_signature: str


def read_examples(path: Path) -> list[Example]:
    """Reads the examples of a held-out part."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Example(english, source, Genre(genre), t) for english, source, genre, t in rows]


def evaluate_language(
    model: Transformer, tokenizer: Tokenizer, examples: Sequence[Example], language: str
) -> LanguageResult:
    """Translates every example that has a reference in the language, and scores the result."""
    used = [example for example in examples if language in example.translations]
    outputs = translate(model, tokenizer, [example.english for example in used], language)
    references = [example.translations[language] for example in used]
    chrf, bleu = CHRF(), BLEU(tokenize=_BLEU_TOKENIZERS.get(language, "13a"))

    def score(chosen: list[int]) -> Score:
        texts, wanted = [outputs[i] for i in chosen], [[references[i] for i in chosen]]
        return Score(
            len(chosen),
            round(chrf.corpus_score(texts, wanted).score, 2),
            round(bleu.corpus_score(texts, wanted).score, 2),
        )

    names = sorted({example.source for example in used})
    by_source = {n: score([i for i, e in enumerate(used) if e.source == n]) for n in names}
    overall = score(list(range(len(used))))
    signatures = str(chrf.get_signature()), str(bleu.get_signature())
    return LanguageResult(overall, by_source, *signatures)


def evaluate(
    model: Transformer, tokenizer: Tokenizer, examples: Sequence[Example]
) -> dict[str, LanguageResult]:
    """Evaluates every language."""
    model.eval()
    return {
        language: evaluate_language(model, tokenizer, examples, language) for language in LANGUAGES
    }


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
