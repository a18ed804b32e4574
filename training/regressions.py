"""Measurements as lines, and what of them is worse than the committed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.recipe import LANGUAGES
from training.results import DEFAULT

SCORE_TOLERANCE = 0.5
"""Points of chrF or BLEU: a machine's fp32 arithmetic, a package's update."""
CHECK_TOLERANCE = 0.5
"""Percentage points of a check."""
INT8_LOSS = 0.3
"""Points of chrF that int8 may lose against fp32 on the whole test part."""


def lines(measured: Mapping[str, Any]) -> Iterator[str]:
    """Yields one line per number: the default variant's under the model's bare name."""
    for variant, found in measured.items():
        name = "model" if variant == DEFAULT.name else f"model.{variant}"
        for language, result in found["languages"].items():
            yield f"{name}.chrf.{language} {result['chrf']:.1f}"
            yield f"{name}.bleu.{language} {result['overall']['bleu']:.1f}"
        for check, rate in found["checks"].items():
            yield f"{name}.{check} {rate['right']:.2f} of {rate['checked']}"
    default = measured.get(DEFAULT.name, {"languages": {}})["languages"]
    for kind in ("by_source", "by_length"):
        for language, result in default.items():
            for group, score in result[kind].items():
                label = group.replace(" words", "w")
                yield f"model.chrf.{language}.{label} {score['chrf']:.1f} of {score['strings']}"


def regressions(measured: Mapping[str, Any], committed: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence for everything that has become worse by more than its tolerance.

    Args:
        measured: what ``measure`` returned.
        committed: the same of the committed model on the same sample; may lack variants.
    """
    for variant in measured.keys() & committed.keys():
        before, now = _numbers(committed[variant]), _numbers(measured[variant])
        for name, (value, tolerance) in before.items():
            if name in now and now[name][0] < value - tolerance:
                yield f"{variant}.{name}: {now[name][0]:.2f}, was {value:.2f}"


def _numbers(found: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Returns every number that may not fall, with its tolerance."""
    numbers = {}
    for language, result in found["languages"].items():
        numbers[f"chrf.{language}"] = (result["chrf"], SCORE_TOLERANCE)
        numbers[f"bleu.{language}"] = (result["overall"]["bleu"], SCORE_TOLERANCE)
    for check, rate in found["checks"].items():
        numbers[check] = (rate["right"], CHECK_TOLERANCE)
    return numbers


def int8_losses(measured: Mapping[str, Any]) -> Iterator[str]:
    """Yields a sentence for every language in which int8 loses too much against fp32."""
    for search in ("greedy", "beam5"):
        whole, small = measured.get(f"fp32-{search}"), measured.get(f"int8-{search}")
        if not whole or not small:
            continue
        for language in LANGUAGES:
            exact, found = (v["languages"][language]["overall"]["chrf"] for v in (whole, small))
            if found < exact - INT8_LOSS:
                yield f"int8-{search}.chrf.{language}: {found:.2f}, fp32 has {exact:.2f}"
