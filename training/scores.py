"""BLEU and chrF of finished translations, by source and length.

chrF: Popović 2015; BLEU: Papineni et al. 2002; both as sacrebleu computes them (Post 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from training.corpus import Example
from training.recipe import ASIDE

# "char" needs no dictionary; ja-mecab would.
_BLEU_TOKENIZERS = {"ja": "char", "zh_CN": "zh"}
LENGTHS = {"1-4 words": 4, "5-12 words": 12, "13-25 words": 25, "26+ words": 10_000}
"""Groups of English strings by their longest."""


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
    """Quality in one language; signatures say how it was computed.

    Attributes:
        chrf: mean of the sources' chrF2: no source counts for more because it is larger.
        overall: all strings as one corpus.
        by_source: the strings of each source, ``ASIDE`` among them.
        by_length: the strings of each of ``LENGTHS`` that occurs.

    All but ``by_source`` leave out the sources that stand ``ASIDE``.
    """

    chrf: float
    overall: Score
    by_source: dict[str, Score]
    by_length: dict[str, Score]
    chrf_signature: str
    bleu_signature: str


def score_language(
    examples: Sequence[Example], outputs: Sequence[str], language: str
) -> LanguageResult:
    """Scores the translations of examples that all have a reference in the language."""
    chrf, bleu = CHRF(), BLEU(tokenize=_BLEU_TOKENIZERS.get(language, "13a"))
    references = [example.translations[language] for example in examples]

    def score(chosen: Sequence[int]) -> Score:
        texts, wanted = [outputs[i] for i in chosen], [[references[i] for i in chosen]]
        return Score(
            len(chosen),
            round(chrf.corpus_score(texts, wanted).score, 2),
            round(bleu.corpus_score(texts, wanted).score, 2),
        )

    counted = [i for i, example in enumerate(examples) if example.source not in ASIDE]
    by_source = _grouped(score, {i: example.source for i, example in enumerate(examples)})
    by_length = _grouped(score, {i: length_group(examples[i].english) for i in counted})
    overall = score(counted)
    means = [found.chrf for name, found in by_source.items() if name not in ASIDE]
    average = round(mean(means or [0.0]), 2)
    signatures = str(chrf.get_signature()), str(bleu.get_signature())
    return LanguageResult(average, overall, by_source, by_length, *signatures)


def _grouped(score: Callable[[list[int]], Score], names: Mapping[int, str]) -> dict[str, Score]:
    return {
        name: score([i for i, found in names.items() if found == name])
        for name in sorted(set(names.values()))
    }


def length_group(english: str) -> str:
    """Returns the group of an English string."""
    words = len(english.split())
    return next(name for name, longest in LENGTHS.items() if words <= longest)
