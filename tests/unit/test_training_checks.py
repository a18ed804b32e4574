"""Checks of translations, scores, and what counts as a regression."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from training.checks import CHECKS, Translated, rates
from training.corpus import Example
from training.evaluate import sample
from training.recipe import Genre
from training.regressions import int8_losses, lines, regressions
from training.results import PLAIN, VARIANTS, variants_named
from training.scores import length_group, score_language

RIGHT = [
    ("placeholders", "Save %s to {name}", "{name} に %s を保存", "ja"),
    ("placeholders", "100% sure about $price and %1", "%1 und $price: 100 % sicher", "de"),
    ("markup", "Click <b>OK</b> &amp; go", "<b>OK</b> &amp; los", "de"),
    ("numbers", "The 2nd of 30 files", "Die 2. von 30 Dateien (von 99)", "de"),
    ("no_loop", "Ha ha ha ha ha!", "Ha ha ha ha ha!", "de"),
    ("no_loop", "Wait…", "------------", "fr"),
    ("script", "open the file now", "GIMP でファイルを開く", "ja"),
    ("script", "open the file now", "打开文件", "zh_CN"),
    ("length", "Open", "Ouvrir le fichier", "fr"),
]
WRONG = [
    ("placeholders", "Save %s to {name}", "{nom} に %s を保存", "ja"),
    ("placeholders", "Save %s", "Save %s %s", "de"),
    ("markup", "Click <b>OK</b>", "<b>OK<b>", "de"),
    ("numbers", "The 2nd of 30 files", "Die 2. von 3 Dateien", "de"),
    ("no_loop", "Wait", "und und und und und und", "de"),
    ("no_loop", "Wait", "待待待待待待待待", "zh_CN"),
    ("script", "open the file now", "Open the file", "ja"),
    ("script", "open the file now", "ファイルを开", "zh_CN"),
    ("script", "open the file now", "Öffne 文件", "de"),
    ("length", "Do you want to delete all of the selected files?", "Ja", "de"),
    ("length", "Open", " ", "de"),
]


@pytest.mark.parametrize(("check", "english", "text", "language"), RIGHT)
def test_right(check: str, english: str, text: str, language: str) -> None:
    assert CHECKS[check](Translated(english, text, language)) is True


@pytest.mark.parametrize(("check", "english", "text", "language"), WRONG)
def test_wrong(check: str, english: str, text: str, language: str) -> None:
    assert CHECKS[check](Translated(english, text, language)) is False


def test_what_holds_nothing_to_check_is_not_counted() -> None:
    plain = Translated("GIMP", "GIMP", "ja")
    assert rates([plain]).keys() == {"no_loop", "length"}
    cut = Translated("GIMP", "GIMP", "ja", complete=False)
    assert rates([plain, cut])["no_loop"].right == 50.0


def test_the_mean_over_sources_does_not_depend_on_their_sizes() -> None:
    def example(english: str, source: str, german: str) -> Example:
        return Example(english, source, Genre.INTERFACE, {"de": german})

    examples = [example(f"Open {i}", "gimp", f"Öffnen {i}") for i in range(9)]
    examples.append(example("This is a very long one", "vlc", "Anders"))
    found = score_language(examples, [*(e.translations["de"] for e in examples[:9]), "zz"], "de")
    assert (found.by_source["gimp"].chrf, found.by_source["vlc"].chrf) == (100.0, 0.0)
    assert found.chrf == 50.0
    assert found.overall.chrf > 80
    assert found.by_length.keys() == {"1-4 words", "5-12 words"}
    assert length_group("word " * 400) == "26+ words"


def test_a_source_that_stands_aside_counts_for_itself_alone() -> None:
    examples = [
        Example("Open it", "gimp", Genre.INTERFACE, {"de": "Öffnen"}),
        Example("This is a pen.", "tatoeba", Genre.EVERYDAY, {"de": "Das ist ein Stift."}),
    ]
    found = score_language(examples, ["Öffnen", "zz"], "de")
    assert found.chrf == found.overall.chrf == 100.0
    assert found.overall.strings == 1
    assert found.by_length.keys() == {"1-4 words"}
    assert found.by_source["tatoeba"].chrf == 0.0


def test_a_sample_is_a_fixed_share() -> None:
    examples = [Example(f"text {i}", "gimp", Genre.GAME) for i in range(2000)]
    chosen = sample(examples, 0.1)
    assert chosen == sample(examples, 0.1)
    assert 150 < len(chosen) < 250
    assert sample(examples, 1.0) == examples


@pytest.fixture
def measured() -> dict[str, Any]:
    score = {"strings": 10, "chrf": 40.0, "bleu": 20.0}
    result = {"chrf": 41.0, "overall": score, "by_source": {"gimp": score}, "by_length": {}}
    languages = dict.fromkeys(("ja", "de", "fr", "es", "zh_CN"), result)
    checks = {"no_loop": {"checked": 50, "right": 99.0}}
    found = {v.name: {"languages": languages, "checks": checks} for v in VARIANTS}
    copied: dict[str, Any] = json.loads(json.dumps(found))  # nothing shared
    return copied


def test_lines_name_every_number(measured: dict[str, Any]) -> None:
    printed = list(lines(measured))
    assert "model.chrf.de 41.0" in printed
    assert "model.fp32-beam5.bleu.ja 20.0" in printed
    assert "model.no_loop 99.00 of 50" in printed
    assert "model.chrf.de.gimp 40.0 of 10" in printed
    del measured["int8-greedy"]
    assert all("-" in line.split()[0] for line in lines(measured))


def test_a_number_that_falls_is_a_regression(measured: dict[str, Any]) -> None:
    assert not list(regressions(measured, measured))
    assert not list(regressions(measured, {}))
    worse = copy.deepcopy(measured)
    worse["int8-greedy"]["languages"]["de"]["chrf"] = 40.4
    worse["fp32-beam5"]["checks"]["no_loop"]["right"] = 98.0
    assert sorted(regressions(worse, measured)) == [
        "fp32-beam5.no_loop: 98.00, was 99.00",
        "int8-greedy.chrf.de: 40.40, was 41.00",
    ]
    assert not list(regressions(measured, worse))  # better is no regression


def test_int8_may_lose_a_little(measured: dict[str, Any]) -> None:
    worse = copy.deepcopy(measured)
    worse["int8-greedy"]["languages"]["ja"]["overall"]["chrf"] = 39.8
    assert not list(int8_losses(worse))
    worse["int8-greedy"]["languages"]["fr"]["overall"]["chrf"] = 39.6
    assert list(int8_losses(worse)) == ["int8-greedy.chrf.fr: 39.60, fp32 has 40.00"]


def test_variants_have_names() -> None:
    assert variants_named(["int8-greedy-plain"]) == [PLAIN]
    assert variants_named(None) == list(VARIANTS)
    assert [variant.beams for variant in variants_named(["int8-beam5"])] == [5]
    with pytest.raises(ValueError, match="variant: must be one of int8-greedy, int8-g"):
        variants_named(["int4"])
