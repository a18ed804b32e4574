"""`wire-types`: what rounding memories to each wire type does to translations.

The embedded model as both services run it, greedy, memories by reference: our own sentences
(`sentences.txt`) and lines of this repository's documentation (`technical.txt`), once for every
wire type. Each translation is compared with that of the same source over f32: the share that is
the same to the letter, and chrF2 with the translations over f32 as references. What it is worth is
chrF2 against our own German translations (`sentences.de.txt`), as the difference from f32's.

In int8, as services run by default; with `fp32` before the wire type, all arithmetic in float32.
Nothing here depends on speed: two runs give the same figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Report
from benchmarks.servers import our_services
from benchmarks.texts import chrf, lines
from splitformer.wire import DTYPE_NAMES, packed_bytes
from splitformer_client import aio

IN_FLIGHT = 16
MOST_TOKENS = 96
REFERENCE = "f32"
WIDTH = 256
"""Of the memories whose sizes are compared."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure.

    Attributes:
        texts: Lines of the documentation beside our sentences, at most.
        languages: Target languages, the references' among them.
        precisions: Of both services.
        model: Folder of the model; empty: the embedded one.
    """

    texts: int
    languages: tuple[str, ...]
    precisions: tuple[str, ...]
    model: str = ""


QUICK = Plan(240, ("de",), ("int8",))
FULL = Plan(240, ("de", "es", "fr", "ja", "zh_CN"), ("int8", "fp32"))

Translated = dict[str, list[str]]
"""Translations of all texts, by language."""


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `wire_types.*`."""
    plan = QUICK if quick else FULL
    texts = [*lines("sentences.txt"), *lines("technical.txt")[: plan.texts]]
    cache.mkdir(parents=True, exist_ok=True)
    report.figure("wire_types.translations", len(texts) * len(plan.languages))
    for precision in plan.precisions:
        prefix = "wire_types." + ("" if precision == "int8" else f"{precision}.")
        over_f32: Translated = {}
        for name in sorted(DTYPE_NAMES, key=lambda name: name != REFERENCE):
            flags = ("--memory-dtype", name, "--precision", precision)
            translated = _translated(flags, texts, plan, cache)
            over_f32 = over_f32 or translated
            compare(report, prefix + name, translated, over_f32)
            report.details[prefix + name] = translated
    for name, dtype in DTYPE_NAMES.items():
        report.figure(f"wire_types.{name}.row_bytes", packed_bytes(dtype, (1, WIDTH)))


def _translated(flags: Sequence[str], texts: Sequence[str], plan: Plan, cache: Path) -> Translated:
    """Translate all texts with both services run in one way."""
    with our_services(plan.model, cache, 1, flags=flags) as services:
        return asyncio.run(_all(services.encoder, services.decoder, texts, plan.languages))


async def _all(
    encoder: str, decoder: str, texts: Sequence[str], languages: Sequence[str]
) -> Translated:
    slots = asyncio.Semaphore(IN_FLIGHT)
    async with aio.connect(encoder, decoder, timeout=60.0) as client:

        async def one(text: str) -> list[str]:
            async with slots:
                done = await client.translate(text, languages, max_new_tokens=MOST_TOKENS)
            return [translation.text for translation in done]

        each = await asyncio.gather(*map(one, texts))
    return dict(zip(languages, map(list, zip(*each, strict=True)), strict=True))


def compare(report: Report, prefix: str, given: Translated, over_f32: Translated) -> None:
    """Report what a wire type did to translations, our own sentences first, in `PREFIX.*`."""
    references = lines("sentences.de.txt")
    ours = len(references)
    worth = chrf(given["de"][:ours], references)
    report.figure(f"{prefix}.chrf", worth)
    if given is over_f32:
        return
    report.figure(f"{prefix}.chrf_difference", worth - chrf(over_f32["de"][:ours], references))
    report.figure(f"{prefix}.identical", identical(given, over_f32))
    report.figure(f"{prefix}.identical_sentences", identical(given, over_f32, ours))
    flat = [[text for texts in each.values() for text in texts] for each in (given, over_f32)]
    report.figure(f"{prefix}.chrf_to_f32", chrf(*flat))


def identical(some: Translated, others: Translated, most: int | None = None) -> float:
    """Return the share of translations that are the same, of the first `most` texts or of all."""
    same = [
        one == other
        for language in some
        for one, other in zip(some[language][:most], others[language][:most], strict=True)
    ]
    return sum(same) / len(same)
