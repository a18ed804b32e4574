"""Real sentences to measure with, and how near a translation comes to another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sacrebleu.metrics.chrf import CHRF

_FOLDER = Path(__file__).parent


def lines(name: str) -> list[str]:
    """Read `sentences.txt` (ours), `sentences.de.txt` (translated) or `technical.txt` (docs)."""
    return (_FOLDER / name).read_text(encoding="utf-8").splitlines()


def chrf(texts: Sequence[str], references: Sequence[str]) -> float:
    """Return chrF2 of all texts together, 0 to 100."""
    metric: Any = CHRF()
    return float(metric.corpus_score(texts, [references]).score)
