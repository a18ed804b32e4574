"""The split: deterministic, and nothing held out is ever trained on."""

from __future__ import annotations

import itertools

import pytest

from training.corpus import examples
from training.mine import Pair
from training.recipe import ASIDE, HELD_OUT_PACKAGES, Genre, Source, recipe
from training.split import Part, SplitSettings, Splitter, fold

HELP = Source("libreoffice-help", "MPL-2.0", Genre.HELP, ())
GIMP = Source("gimp", "GPL-3.0-or-later", Genre.INTERFACE, ())
WESNOTH = Source("wesnoth-campaigns", "GPL-2.0-or-later", Genre.DIALOGUE, ())
SOURCES = (GIMP, HELP, WESNOTH)
CAMPAIGN = next(iter(HELD_OUT_PACKAGES))
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu".split()


def corpus() -> list[Pair]:
    pairs = []
    for i, words in enumerate(itertools.permutations(WORDS, 3)):
        english = " ".join(words)
        source, document = [
            (GIMP, "gimp-data"),
            (HELP, f"page{i % 200}"),
            (WESNOTH, CAMPAIGN if i % 5 else "wesnoth-1.16-ei"),
        ][i % 3]
        for text in (english, english.upper() + "!", f"{english}: %d"):
            pairs.append(Pair(source.name, document, "de", text, f"de {text}", 1))
        pairs.append(Pair(GIMP.name, "gimp-data", "ja", f"common {i % 50}", "共通", 1))
        pairs.append(Pair(HELP.name, f"page{i % 200}", "ja", f"common {i % 50}", "共通", 1))
    return pairs


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Open the File…", "open the file"),
        ("Page %d of %d", "page of"),
        ("<b>Save</b> {name}", "SAVE"),
        ("Row 12", "Row 7"),
    ],
)
def test_fold_ignores_case_digits_punctuation_and_placeholders(left: str, right: str) -> None:
    assert fold(left) == fold(right)


def test_fold_keeps_something_of_a_bare_placeholder() -> None:
    assert fold("{name}") == "name"


def test_split_is_deterministic_and_covers_all_parts() -> None:
    pairs = corpus()
    first, second = Splitter(pairs), Splitter(reversed(pairs))
    parts = [first.part(pair) for pair in pairs]
    assert parts == [second.part(pair) for pair in pairs]
    assert set(parts) == {*Part, None}


def test_no_key_is_in_two_parts() -> None:
    pairs = corpus()
    found = examples(pairs, Splitter(pairs), SOURCES)
    keys = {part: {fold(example.english) for example in found[part]} for part in Part}
    for left, right in itertools.combinations(Part, 2):
        assert keys[left].isdisjoint(keys[right])
    assert all(keys.values())


def test_held_out_documents_are_never_trained_on() -> None:
    pairs = corpus()
    splitter = Splitter(pairs)
    held = [pair for pair in pairs if splitter.held_out(pair)]
    assert {pair.document for pair in held} > {CAMPAIGN}
    assert all(splitter.part(pair) is not Part.TRAINING for pair in held)


def test_common_strings_of_held_out_documents_stay_in_training_only() -> None:
    pairs = corpus()
    settings = SplitSettings(pages=1000, keys=0)
    splitter = Splitter(pairs, settings)
    common = [pair for pair in pairs if pair.english.startswith("common")]
    assert {splitter.part(pair) for pair in common if pair.source == GIMP.name} == {Part.TRAINING}
    assert {splitter.part(pair) for pair in common if pair.source == HELP.name} == {None}


def test_the_most_used_translation_of_the_first_source_wins() -> None:
    pairs = [
        Pair("gimp", "gimp-data", "de", "Open", "Öffnen", 1),
        Pair("gimp", "gimp-data", "de", "Open", "Offen", 2),
        Pair("libreoffice-help", "page", "de", "Open", "Auf", 9),
        Pair("libreoffice-help", "page", "ja", "Open", "開く", 1),
    ]
    splitter = Splitter(pairs, SplitSettings(pages=0, keys=0))
    (example,) = examples(pairs, splitter, SOURCES)[Part.TRAINING]
    assert example.source == "gimp"
    assert example.translations == {"de": "Offen", "ja": "開く"}


def test_recipes() -> None:
    minimal, default = map(recipe, ("minimal", "default"))
    assert set(minimal) < set(default)
    assert {source.name for source in default} > ASIDE
    assert {source.licence for source in minimal} == {"MPL-2.0"}
    reserved = ("vlc", "gramps", "kde")
    names = [package for source in default for package in source.packages]
    assert not any(word in name for name in names for word in reserved)
    assert len(names) == len(set(names))
    with pytest.raises(ValueError, match="must be one of minimal, default"):
        recipe("everything")
