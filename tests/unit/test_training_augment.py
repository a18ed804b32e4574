"""Copies with other placeholders."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from training.augment import augment
from training.corpus import Example
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
