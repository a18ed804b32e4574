"""Writes the pronunciation model's card from measured results."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from training.g2p.results import DEFAULT, VARIANTS
from training.g2p.run import architecture

WANTED_WER = 24.0
PUBLISHED = (
    ("joint-sequence n-grams (Bisani and Ney 2008)", 24.53, 5.88),
    ("bidirectional LSTM with alignments (Yao and Zweig 2015)", 23.55, 5.45),
    ("Transformer, 4+4 layers (Yolchuyeva et al. 2019)", 22.1, 5.23),
    ("LSTM with attention, an ensemble (Toshniwal and Livescu 2016)", 20.24, 4.69),
)
"""Word and phoneme error rates on CMUdict, as published, on the split that those papers share."""


def model_card(results: dict[str, Any], edition: dict[str, Any]) -> str:
    """Returns the card as Markdown.

    Args:
        results: facts, error rates and samples.
        edition: the dictionary, as ``sources.json`` has it.
    """
    sections = (
        _introduction(results["facts"]),
        _quality(results),
        _samples(results["samples"]),
        _training(results["facts"], edition),
    )
    return "\n".join("\n".join(section) + "\n" for section in sections)


def _introduction(facts: dict[str, Any]) -> Iterable[str]:
    yield "# en-g2p"
    yield ""
    yield (
        "English spelling to pronunciation (grapheme to phoneme), one word at a time: letters in, "
        "the 39 phonemes of the CMU Pronouncing Dictionary out, without stress. A small "
        "Transformer encoder-decoder for the same two services."
    )
    yield ""
    shape = architecture()
    yield (
        f"{facts['parameters'] / 1e6:.2f} million parameters ({shape.encoder_layers} encoder and "
        f"{shape.decoder_layers} decoder layers, width {shape.d_model}, feed-forward "
        f"{shape.d_feed_forward}, {shape.heads} heads); `model.safetensors` is "
        f"{facts['weight_bytes'] / 1e6:.1f} MB, its linear maps in 8 bits with a scale a row, as "
        "services in int8 hold them, the rest in half precision. Licence: GPL-3.0-or-later, as "
        "the distribution; the dictionary it was trained on has a licence of its own "
        "(`LICENSE.cmudict`)."
    )
    yield ""
    yield (
        "Letters match whatever their case, width and accents; a text with anything else in it "
        "than a to z and the apostrophe is refused (`UNKNOWN_CHARACTER`). The target language is "
        "called `arpabet`."
    )


def _quality(results: dict[str, Any]) -> Iterable[str]:
    test = results["test"]
    yield "## Quality"
    yield ""
    yield (
        f"Through the services, on {test[DEFAULT.name]['words']:,} words chosen by a hash and "
        "never seen in training in any pronunciation. A word is right if it equals any of its "
        "pronunciations. The published figures are on another random split of nearly the same "
        "size and an older edition of the dictionary."
    )
    yield ""
    yield "| model | word error rate, % | phoneme error rate, % |"
    yield "|---|---:|---:|"
    for part, label in (("test", ""), ("quick", ", a tenth of the words")):
        for variant, rates in results.get(part, {}).items():
            yield f"| this, {variant}{label} | {rates['wer']:.1f} | {rates['per']:.2f} |"
    for name, wer, per in PUBLISHED:
        yield f"| {name} | {wer} | {per} |"
    yield ""
    for variant in VARIANTS[:2]:
        search = "greedily" if variant.beams == 1 else f"with {variant.beams} beams"
        gap = test[variant.name]["wer"] - WANTED_WER
        reached = "is reached" if gap <= 0 else f"is missed by {gap:.2f} points"
        yield f"The wanted word error rate of at most {WANTED_WER:.0f} % {reached} {search}."
    yield ""
    yield "Services decode greedily unless a request asks for beams (`num_beams`)."


def _samples(samples: dict[str, list[str]]) -> Iterable[str]:
    yield "## Samples"
    yield ""
    yield "Unpicked: the first ten of the test words in the order of their hashes, greedily."
    yield ""
    for word, (said, *known) in samples.items():
        wanted = "" if said in known else f" (dictionary: `{'`, `'.join(known)}`)"
        yield f"- {word}: `{said}`{wanted}"


def _training(facts: dict[str, Any], edition: dict[str, Any]) -> Iterable[str]:
    words = facts["words"]
    yield "## Training"
    yield ""
    passes = facts["tokens"] / facts["target_tokens"]
    yield (
        f"{facts['tokens'] / 1e6:.1f} million phonemes ({passes:.1f} passes over "
        f"{words['training']:,} words) in {facts['steps']:,} updates, "
        f"{facts['seconds'] / 60:.0f} minutes by the clock on one core of a Xeon of the Emerald "
        "Rapids generation, stops for others' work included. Published models make tens of "
        "passes; the curve is `training/logs/g2p-curve.csv`. "
        f"Validation holds {words['validation']:,} words, test {words['test']:,}. How to build it "
        "again, or train it longer, is in `training/README.md` of the source repository."
    )
    yield ""
    yield (
        f"Data: the CMU Pronouncing Dictionary, Copyright 1993-2015 Carnegie Mellon University, "
        f"from the package `{edition['name']}` {edition['version']} (sha256 "
        f"`{edition['sha256']}`), {edition['entries']:,} entries."
    )
