"""Writes the model card from measured results; no number in it is typed by hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training import card_tables as tables
from training.card_tables import NAMES, WANTED
from training.fetch import Package
from training.recipe import LANGUAGES
from training.results import DEFAULT

SAMPLES = 10


def model_card(
    results: dict[str, Any], packages: Sequence[Package], curve: Sequence[Mapping[str, str]]
) -> str:
    """Returns the card as Markdown.

    Args:
        results: what ``results.measure`` returned.
        packages: the packages that the model was trained on.
        curve: rows of the learning curve.
    """
    variants = results["test"]
    test = variants[DEFAULT.name]["languages"]
    sections = (
        _introduction(results["facts"]),
        _use(),
        _limits(results["facts"], test),
        tables.quality(test),
        tables.variants(results),
        tables.caches(results.get("caches", {})),
        tables.quality_by(test, "by_source", "source"),
        tables.quality_by(test, "by_length", "length of the English"),
        tables.checks(variants),
        _samples(results["samples"][:SAMPLES]),
        _training(results["facts"]),
        _curve(curve, test),
        _sources(packages),
    )
    return "\n".join("\n".join(section) + "\n" for section in sections)


def _introduction(facts: dict[str, Any]) -> Iterable[str]:
    yield "# en-multi"
    yield ""
    yield (
        "English to Japanese, German, French, Spanish and Simplified Chinese: one Transformer "
        "encoder-decoder whose target language is the decoder's first token, so that one memory "
        "serves all five languages. It exists so that Splitformer runs out of the box on real "
        "weights, not to compete with large translation models."
    )
    yield ""
    yield (
        f"{facts['parameters'] / 1e6:.1f} million parameters (4 encoder and 2 decoder layers, "
        "width 256, feed-forward 1024, 4 heads, 12,000 joint SentencePiece pieces with byte "
        "fallback, tied embeddings); "
        f"`model.safetensors` is {facts['weight_bytes'] / 1e6:.1f} MB in half precision. "
        "Licence: GPL-3.0-or-later."
    )


def _use() -> Iterable[str]:
    yield "## Tokens"
    yield ""
    yield (
        "Source: pieces, then `</s>` (1). Decoder: the language token first (`<ja>` 3, `<de>` 4, "
        "`<fr>` 5, `<es>` 6, `<zh_CN>` 7), then pieces until `</s>`. Padding is 0, unknown 2. "
        "Text is not normalised."
    )


def _limits(facts: dict[str, Any], test: dict[str, Any]) -> Iterable[str]:
    low = min(LANGUAGES, key=lambda language: test[language]["chrf"])
    high = max(LANGUAGES, key=lambda language: test[language]["chrf"])
    passes = facts["tokens"] / facts["target_tokens"]
    yield "## Limits"
    yield ""
    yield (
        f"- Trained for {facts['seconds'] / 60:.0f} minutes on two CPU cores, on "
        f"{sum(facts['pairs'].values()) / 1e6:.2f} million pairs, each seen about {passes:.1f} "
        "times. Public models of the usual size see a hundred "
        "times the text, for days, on GPUs, and are far better. This one reaches chrF2 "
        f"{test[low]['chrf']:.0f} ({NAMES[low]}) to "
        f"{test[high]['chrf']:.0f} ({NAMES[high]}) on held-out text of its own kind, "
        "and less on anything else. (chrF2 of Japanese and Chinese is lower than that of "
        "European languages for equally good text: their words have fewer characters.)"
    )
    yield (
        "- It knows user interfaces, software manuals and fantasy dialogue. Of everyday sentences "
        "it has seen some, in Chinese none; most still come out wrong. News, names and long "
        "sentences are outside its world: expect invented words, repetition and lost meaning, "
        "also in fluent sentences."
    )
    yield (
        "- Placeholders (`%s`, `{name}`, `<b>`) are mostly but not always kept (below), by calls "
        "on sessions less often than by `translate`, which also says of each translation whether "
        "they are (`placeholders_kept`)."
    )
    yield "- Do not use it where a wrong translation can do harm."


def _samples(samples: Sequence[dict[str, str]]) -> Iterable[str]:
    yield "## Samples"
    yield ""
    yield (
        f"The first {len(samples)} lines of `benchmarks/sentences.txt`, sentences of our own, "
        "greedy, unpicked."
    )
    for sample in samples:
        yield ""
        yield f"**{_code(sample['en'])}**"
        yield ""
        for language in LANGUAGES:
            yield f"- {language}: {_code(sample[language])}"


def _code(text: str) -> str:
    """Quotes text so that Markdown shows it as it is."""
    return f"`{text}`" if text and "`" not in text else text or "(empty)"


def _training(facts: dict[str, Any]) -> Iterable[str]:
    strings, pairs = facts["strings"], facts["pairs"]
    rate = facts["tokens"] / facts["seconds"]
    yield "## Training"
    yield ""
    yield (
        f"{facts['tokens'] / 1e6:.1f} million target tokens in {facts['steps']} updates and "
        f"{facts['seconds'] / 3600:.2f} hours ({rate:.0f} target tokens a second) on two CPU "
        "cores shared with other work, in two runs: the second began with the weights of the "
        "first and saw a larger corpus. Muon for weight matrices, AdamW for the rest, bfloat16 "
        "arithmetic, a learning rate that falls to zero at the end of each run."
    )
    yield ""
    counted = ", ".join(f"{NAMES[language]} {pairs[language]:,}" for language in LANGUAGES)
    yield (
        f"The training part holds {strings['training']:,} English strings (copies with other "
        f"placeholders included) and {facts['target_tokens'] / 1e6:.1f} million target tokens "
        f"({counted} pairs); validation "
        f"holds {strings['validation']:,} strings, test {strings['test']:,}. How it was built, "
        "and how to build it again, is in `training/README.md` of the source repository."
    )


def _curve(curve: Sequence[Mapping[str, str]], test: dict[str, Any]) -> Iterable[str]:
    """How the model came to where it is, and how far that falls short."""
    short = {name: WANTED[name] - test[name]["chrf"] for name in LANGUAGES}
    missing = [f"{NAMES[name]} {gap:.2f}" for name, gap in short.items() if gap > 0]
    rows = [row for row in curve if row["chrf_de"]]
    yield (
        "The curve: greedy chrF2 of 100 validation strings, and nats per token of validation "
        "text. Where it steps back, the second run began: with a learning rate that rises again, "
        "and with the larger corpus, of which more is held out. "
        f"What falls short of what is wanted at its end, in points of chrF2 on the test part: "
        f"{', '.join(missing) or 'nothing'}."
    )
    yield ""
    yield f"| million target tokens | minutes | nats | {' | '.join(LANGUAGES)} |"
    yield "|---:|---:|---:|" + "---:|" * len(LANGUAGES)
    for row in rows:
        seen, minutes = int(row["tokens"]) / 1e6, float(row["seconds"]) / 60
        scores = (f"{float(row[f'chrf_{language}']):.1f}" for language in LANGUAGES)
        nats = f"{float(row['validation']):.2f}" if row["validation"] else "–"
        yield f"| {seen:.1f} | {minutes:.0f} | {nats} | {' | '.join(scores)} |"


def _sources(packages: Sequence[Package]) -> Iterable[str]:
    yield "## Sources"
    yield ""
    yield (
        "Human translations from Debian packages, and everyday sentences by the contributors of "
        "[Tatoeba](https://tatoeba.org) (CC BY 2.0) from a Python package; checksums are in "
        "`sources.json`. The text itself is not distributed. Our thanks to the translators."
    )
    yield ""
    yield "| source | licence of the text | packages |"
    yield "|---|---|---|"
    by_source: dict[str, list[Package]] = defaultdict(list)
    for package in packages:
        by_source[package.source].append(package)
    for source, found in sorted(by_source.items()):
        names = ", ".join(f"{p.name} {p.version}" for p in sorted(found, key=lambda p: p.name))
        yield f"| {source} | {found[0].licence} | {names} |"
