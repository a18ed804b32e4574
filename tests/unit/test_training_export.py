"""Export round trip, translation, evaluation and the card, on a tiny model and tokenizer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from splitformer.model import Transformer
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.saving import save_checkpoint
from tests.support.tiny_training import TEXTS, tiny_tokenizer, tiny_transformer
from training.card import model_card
from training.corpus import Example
from training.curve import CHRF_COLUMNS, HEADER, read_curve
from training.evaluate import chrf_probe
from training.export import describe
from training.fetch import Package, read_manifest, write_manifest
from training.recipe import LANGUAGES, Genre
from training.results import read_sentences, write_results
from training.scores import score_language
from training.tokenizer import Tokenizer, language_ids
from training.translate import translate


@pytest.fixture(scope="module")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model")


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer(tokenizer_file)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Transformer:
    return tiny_transformer(len(tokenizer)).eval()


def test_tokenizer_keeps_text_as_it_is(tokenizer: Tokenizer) -> None:
    text = "（全角）！ <ja> 😀"
    (pieces,) = tokenizer.encode([text])
    assert tokenizer.decode(pieces) == text
    assert not set(pieces) & {0, 1, 2, *language_ids().values()}
    assert language_ids() == {"ja": 3, "de": 4, "fr": 5, "es": 6, "zh_CN": 7}


def test_export_round_trip(
    tmp_path: Path, model: Transformer, tokenizer: Tokenizer, tokenizer_file: Path
) -> None:
    save_checkpoint(tmp_path, model, describe(model, "tiny"), tokenizer_file)
    checkpoint = Checkpoint(tmp_path)
    starts = {language: (token,) for language, token in language_ids().items()}
    assert dict(checkpoint.description.languages.starts) == starts
    assert checkpoint.description.architecture == model.config
    loaded = checkpoint.load().state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float()), name
    assert translate(checkpoint.load(), tokenizer, TEXTS[:1], "ja")


def test_translation_does_not_depend_on_the_batch(model: Transformer, tokenizer: Tokenizer) -> None:
    texts = [TEXTS[0], "Open", "close the window", "x" * 200]
    together = translate(model, tokenizer, texts, "de")
    assert together == [translate(model, tokenizer, [text], "de")[0] for text in texts]
    with pytest.raises(ValueError, match="language: must be one of ja, de, fr, es, zh_CN"):
        translate(model, tokenizer, texts, "it")


@pytest.fixture
def results(model: Transformer, tokenizer: Tokenizer) -> dict[str, Any]:
    translations = dict(
        zip(LANGUAGES, [TEXTS[1], TEXTS[2], "Ouvrir", "Abrir", TEXTS[3]], strict=True)
    )
    found = [
        Example(TEXTS[0], "gimp", Genre.INTERFACE, translations),
        Example("Open", "libreoffice-help", Genre.HELP, {"de": "Öffnen", "ja": "開く"}),
    ]
    assert chrf_probe(tokenizer, found, 5).measure(model).keys() == set(CHRF_COLUMNS)
    variant: dict[str, Any] = {"languages": {}, "checks": {}}
    for language in LANGUAGES:
        used = [example for example in found if language in example.translations]
        outputs = translate(model, tokenizer, [example.english for example in used], language)
        variant["languages"][language] = asdict(score_language(used, outputs, language))
    variant["checks"] = {"numbers": {"checked": 4, "right": 75.0}}
    plain = {**variant, "checks": {"numbers": {"checked": 4, "right": 50.0}}}
    variant["checks"] |= {"no_loop": {"checked": 8, "right": 100.0}}
    assert variant["languages"]["de"]["overall"]["strings"] == 2
    assert variant["languages"]["fr"]["by_source"].keys() == {"gimp"}
    facts = {
        "parameters": 8_300_000,
        "weight_bytes": 17_000_000,
        "steps": 10,
        "seconds": 5400.0,
        "tokens": 20_000_000,
        "strings": {"training": 130_000, "validation": 1800, "test": 1900},
        "pairs": dict.fromkeys(LANGUAGES, 90_000),
        "target_tokens": 10_000_000,
    }
    sample = {"en": "This is a <b>pen</b>."} | dict.fromkeys(LANGUAGES, "%s <b>x</b>")
    test = {"int8-greedy": variant, "int8-greedy-plain": plain}
    chrf = {"f16": 46.25, "f32": 46.5}
    caches = {"de": {"strings": 4, "differing": 1, "chrf_to_f32": 90.0, "chrf": chrf}}
    return {"facts": facts, "test": test, "samples": [sample] * 12, "caches": caches}


def test_card_is_made_of_measured_results(tmp_path: Path, results: dict[str, Any]) -> None:
    write_results(results, tmp_path / "logs" / "results.json")
    again = json.loads((tmp_path / "logs" / "results.json").read_text(encoding="utf-8"))
    packages = [Package("gimp-data", "2.10", "ab" * 32, 5, "gimp", "GPL-3.0-or-later")]
    write_manifest(packages, tmp_path / "sources.json")
    file = tmp_path / "curve.csv"
    rows = ["1,60,1000000,5,4,,,,,,", "9,120,2000000,5,4,2.5,1,2,3,4,5"]
    file.write_text("\n".join([",".join(HEADER), *rows]))
    curve = read_curve(file)
    card = model_card(again, read_manifest(tmp_path / "sources.json"), curve)
    assert "| gimp | GPL-3.0-or-later | gimp-data 2.10 |" in card
    assert card.count("**`This is a <b>pen</b>.`**") == 10
    german = results["test"]["int8-greedy"]["languages"]["de"]
    assert f"| German | 2 | {german['chrf']:.1f} | 50: {50 - german['chrf']:.2f} short |" in card
    assert german["bleu_signature"] in card
    assert "| translations that differ | 25 % |" in card
    assert "| chrF2, 32 bits | 46.50 |" in card
    assert "| every number is there | 75.00 % | 50.00 % |  | 4 |" in card
    assert "it ends, and nothing is repeated over and over | 100.00 % | – | 99.5 % | 8 |" in card
    assert "| 2.0 | 2 | 2.50 | 1.0 | 2.0 | 3.0 | 4.0 | 5.0 |" in card
    assert "| 1.0 | 1 |" not in card, "nothing was translated there"
    assert f"German {50 - german['chrf']:.2f}" in card
    assert card == model_card(results, packages, curve)


def test_sentences_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("This is a pen.\n\nOpen the file.\n", encoding="utf-8")
    assert read_sentences(path) == ["This is a pen.", "Open the file."]
