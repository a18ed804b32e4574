"""Copies with other placeholders."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from training.augment import augment
from training.corpus import Example
from training.prepare import consistent
from training.recipe import Genre
from training.split import fold

PLACEHOLDER = re.compile(r"\{\w*\}|%\(\w+\)s|%\w|\$\{?\w+\}?|<\w+>")


def example(english: str, genre: Genre = Genre.INTERFACE, **translations: str) -> Example:
    return Example(english, "gimp", genre, translations)


@pytest.mark.parametrize("seed", range(20))
def test_both_sides_get_the_same_placeholders(seed: int) -> None:
    original = example(
        "Could not open %s in LibreOffice",
        de="%s konnte in LibreOffice nicht geöffnet werden",
        ja="%s を開けません",
    )
    (copy,) = augment([original], set(), copies=1, seed=seed)
    assert copy.translations.keys() == {"de"}  # the Japanese one lacks the product
    german, english = (PLACEHOLDER.findall(t) for t in (copy.translations["de"], copy.english))
    assert Counter(german) == Counter(english)
    assert len(english) == 2
    assert "LibreOffice" not in copy.english


def test_nothing_to_replace_gives_no_copy() -> None:
    plain = example("Open the file at 100% size", de="Datei in voller Größe öffnen")
    manual = example("Use %s", Genre.MANUAL, de="%s benutzen")
    long = example("word " * 30 + "%s", de="Wort " * 30 + "%s")
    assert list(augment([plain, manual, long], set())) == []


def test_copies_never_take_a_held_out_key() -> None:
    original = example("About LibreOffice", de="Über LibreOffice")
    assert list(augment([original], set(), copies=3))
    found = list(augment([original], {"about"}, copies=50))
    assert all(fold(copy.english) != "about" for copy in found)
    assert len(found) < 50


def test_copies_are_reproducible() -> None:
    originals = [example(f"Open %s number {i}", fr=f"Ouvrir %s numéro {i}") for i in range(20)]
    first, second = (list(augment(originals, set(), seed=3)) for _ in range(2))
    assert first == second
    assert len(first) == 40
    assert len({copy.english for copy in first}) > 30


def test_names_and_numbers_that_a_translation_keeps_are_replaced_in_both() -> None:
    original = example(
        "Meet Konrad at 4500 Main Street",
        Genre.DIALOGUE,
        fr="Rendez-vous avec Konrad au 4500",
        ja="4500番地でKonradに会え",
        de="Triff Konrads Volk",
    )
    copies = [*augment([original] * 40, set(), copies=0, names=1.0)]
    assert len(copies) == 40
    for copy in copies:
        assert "Konrad" not in copy.english
        assert "4500" not in copy.english
        assert copy.english.startswith("Meet ")
        assert copy.english.endswith(" Main Street")  # no translation has these as they are
        assert copy.translations.keys() == {"fr", "ja"}
        name, number = copy.english.removeprefix("Meet ").removesuffix(" Main Street").split(" at ")
        assert copy.translations["fr"] == f"Rendez-vous avec {name} au {number}"
        assert copy.translations["ja"] == f"{number}番地で{name}に会え"
    assert any(re.search(r"\b\d{4}\b", copy.english) for copy in copies)
    assert any(not re.search(r"\b\d{4}\b", copy.english) for copy in copies)


def test_a_name_in_a_longer_word_stays() -> None:
    original = example("Text overflow", de="Textüberlauf")
    assert not list(augment([original], set(), copies=0, names=1.0))


def test_the_share_of_examples_with_names_is_kept() -> None:
    originals = [example(f"Konrad number {i}", fr=f"Konrad numéro {i}") for i in range(1000)]
    assert 200 < len(list(augment(originals, set(), names=0.25))) < 300
    assert not list(augment(originals, set()))


def test_training_translations_that_a_check_calls_wrong_are_dropped() -> None:
    original = example(
        "Keep {n} of 12 <b>files</b>",
        de="{n} von 12 <b>Dateien</b> behalten",
        fr="Garder 12 <b>fichiers</b>",
        es="Guardar {n} de 12 archivos",
        ja="12の<b>ファイル</b>から{n}つだけを残す",
        zh_CN="保留{n}个<b>文件</b>",
    )
    (left,) = consistent([original, example("%s!", de="%d!")])
    assert left.translations.keys() == {"de", "ja"}
    assert left.english == original.english
