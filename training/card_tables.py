"""The model card's tables of quality, from measured results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from training.recipe import LANGUAGES
from training.results import DEFAULT, PLAIN
from training.scores import LENGTHS

WANTED = {"de": 50.0, "fr": 50.0, "es": 50.0, "ja": 30.0, "zh_CN": 30.0}
"""chrF2, mean over sources, that the project asks of the model."""
WANTED_CHECKS = {"placeholders": 97.0, "no_loop": 99.5}
"""Per cent of the translations that the project asks to pass a check."""
_CHECK_NOTES = {
    "placeholders": "the same placeholders as the source (`%s`, `{name}`, `$x`)",
    "markup": "the same tags and entities",
    "numbers": "every number is there",
    "no_loop": "it ends, and nothing is repeated over and over",
    "script": "letters of the language's script",
    "length": "neither far too short nor far too long",
}
NAMES = {
    "ja": "Japanese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "zh_CN": "Simplified Chinese",
}
_SOURCE_NOTES = {
    "tatoeba": "everyday sentences; not in the mean",
    "wesnoth-campaigns": "dialogue; one campaign held out whole",
    "libreoffice-help": "help pages held out whole",
}


def quality(test: dict[str, Any]) -> Iterable[str]:
    """Scores by language on the test part, beside what the project asks of them."""
    yield "## Quality on the test split"
    yield ""
    yield (
        "Through the services in int8, greedy: strings never seen in training in any language, "
        "after folding case, digits and punctuation. One reference. chrF2 is the mean over the "
        "sources, so that no source counts for more because it is larger. Everyday sentences "
        "(Tatoeba) stand in the table by source only: no other figure has them in it."
    )
    yield ""
    yield "| language | strings | chrF2 | wanted | chrF2, one corpus | BLEU |"
    yield "|---|---:|---:|---:|---:|---:|"
    for language in LANGUAGES:
        result, wanted = test[language], WANTED[language]
        overall, gap = result["overall"], wanted - result["chrf"]
        reached = "reached" if gap <= 0 else f"{gap:.2f} short"
        yield (
            f"| {NAMES[language]} | {overall['strings']} | {result['chrf']:.1f} "
            f"| {wanted:.0f}: {reached} | {overall['chrf']:.1f} | {overall['bleu']:.1f} |"
        )
    yield ""
    yield from _signatures(test)


def _signatures(test: dict[str, Any]) -> Iterable[str]:
    yield "Signatures (sacrebleu):"
    yield ""
    yield f"- chrF2: `{test['de']['chrf_signature']}`"
    groups: dict[str, list[str]] = defaultdict(list)
    for language in LANGUAGES:
        groups[test[language]["bleu_signature"]].append(language)
    for signature, languages in groups.items():
        yield f"- BLEU, {', '.join(languages)}: `{signature}`"


def variants(results: dict[str, Any]) -> Iterable[str]:
    """The whole test part for the variants measured on it, a tenth of it for all."""
    yield "chrF2 (mean over sources) by precision and search:"
    yield ""
    yield f"| strings | variant | {' | '.join(LANGUAGES)} |"
    yield "|---|---|" + "---:|" * len(LANGUAGES)
    for part, label in (("test", "all"), ("quick", "a tenth")):
        for variant, found in results.get(part, {}).items():
            cells = (f"{found['languages'][language]['chrf']:.1f}" for language in LANGUAGES)
            yield f"| {label} | {variant} | {' | '.join(cells)} |"


def caches(found: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """What it costs to hold keys and values in 16 bits, as decoders in int8 do."""
    if not found:
        return
    yield (
        "Decoders in int8 hold keys and values in 16 bits. What 32 would give, with all else the "
        "same (greedy, by the model alone, all test strings; `python -m training caches`):"
    )
    yield ""
    yield f"| | {' | '.join(found)} |"
    yield "|---|" + "---:|" * len(found)
    for cache, label in (("f16", "16 bits"), ("f32", "32 bits")):
        scores = (f"{each['chrf'][cache]:.2f}" for each in found.values())
        yield f"| chrF2, {label} | {' | '.join(scores)} |"
    shares = (f"{100 * each['differing'] / each['strings']:.0f} %" for each in found.values())
    yield f"| translations that differ | {' | '.join(shares)} |"
    near = (f"{each['chrf_to_f32']:.1f}" for each in found.values())
    yield f"| chrF2 of the one with the other as reference | {' | '.join(near)} |"


def quality_by(test: dict[str, Any], kind: str, head: str) -> Iterable[str]:
    """Scores by source or by length."""
    yield f"chrF2 by {head} (strings):"
    yield ""
    yield f"| {head} | {' | '.join(LANGUAGES)} |"
    yield "|---|" + "---:|" * len(LANGUAGES)
    names = {name for language in LANGUAGES for name in test[language][kind]}
    for name in sorted(names, key=lambda name: (LENGTHS.get(name, 0), name)):
        cells = [_cell(test[language][kind].get(name)) for language in LANGUAGES]
        note = f" ({_SOURCE_NOTES[name]})" if name in _SOURCE_NOTES else ""
        yield f"| {name}{note} | {' | '.join(cells)} |"


def checks(variants: Mapping[str, Any]) -> Iterable[str]:
    """The checks as text calls pass them, beside what the model says by itself."""
    checks, plain = (variants.get(v.name, {"checks": {}})["checks"] for v in (DEFAULT, PLAIN))
    yield (
        "What users notice first, of all languages together (int8, greedy, all test strings). "
        "Text calls translate again what lost a placeholder or repeats itself; `plain` is what the "
        "model says without that:"
    )
    yield ""
    yield "| check | right | plain | wanted | of |"
    yield "|---|---:|---:|---:|---:|"
    for name, rate in checks.items():
        wanted = f"{WANTED_CHECKS[name]:.1f} %" if name in WANTED_CHECKS else ""
        without = f"{plain[name]['right']:.2f} %" if name in plain else "–"
        cells = (_CHECK_NOTES[name], f"{rate['right']:.2f} %", without, wanted, rate["checked"])
        yield f"| {' | '.join(map(str, cells))} |"


def _cell(score: dict[str, Any] | None) -> str:
    return f"{score['chrf']:.1f} ({score['strings']})" if score else "–"
