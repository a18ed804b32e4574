"""Which terms a text lacks, which of a glossary a source asks for, and how they are spelled."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from splitformer.errors import FailedPreconditionError, InvalidArgumentError
from splitformer.generation import GenerationOptions, Glossary, Vocabulary
from splitformer.generation.glossary import occurring
from splitformer.generation.terms import Spelling, Term, begins_sentence, lacking, surplus
from splitformer.model.checkpoint import Checkpoint


def terms(*texts: str) -> tuple[Term, ...]:
    return tuple(Term(text, ()) for text in texts)


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("Datei", "Die Datei", 1),
        ("Datei", "Die Dateien, ein Dateiname", 0),
        ("Datei", "Datei/Datei (Datei)", 3),
        ("datei öffnen", "Datei öffnen. Datei öffnen", 2),
        ("datei", "Die Datei", 0),
        ("öffnen", "»Öffnen« Sie", 1),
        ("ファイル", "プロファイルとファイル", 2),
        ("C++", "C++.", 1),
    ],
)
def test_a_term_is_there_as_whole_words(term: str, text: str, found: int) -> None:
    assert lacking(terms(term), (3,), text) == (3 - found,)


def test_a_place_counts_for_one_term_the_longest() -> None:
    both = terms("Datei speichern", "Datei")
    assert lacking(both, (1, 1), "Datei speichern") == (0, 1)
    assert lacking(both, (1, 1), "Die Datei: Datei speichern") == (0, 0)
    assert lacking(both, (1, 1), "Datei speichern, Datei speichern") == (0, 0), "one is left over"
    assert lacking(both, (1, 2), "Datei. Datei") == (1, 0)


def test_a_term_may_come_as_often_as_it_may() -> None:
    both = terms("%10", "%1")
    assert not surplus(both, (1, 1), "%1 %10")
    assert surplus(both, (1, 1), "%1 %10 %1")
    assert surplus(both, (0, 1), "%10")
    assert not surplus(both, (1, math.inf), "%1 %10 %1")
    assert not surplus(terms("Datei"), (1,), "Datei, Dateien")


@pytest.mark.parametrize(
    ("text", "begins"),
    [("", True), ("Ja. ", True), ("„", True), ("Was?! (", True), ("Die", False), ("a, ", False)],
)
def test_where_sentences_begin(text: str, begins: bool) -> None:
    assert begins_sentence(text) == begins


@pytest.mark.parametrize(
    ("spelled", "term", "before", "fits"),
    [
        (" Datei", "Datei", "Die", True),
        ("Datei", "Datei", "Die", False),
        ("Datei", "Datei", "Die ", True),
        ("Datei", "Datei", "l'", True),
        (" Datei", "datei", "Die", False),
        (" Datei", "datei", "", True),
        ("ファイル", "ファイル", "この", True),
        (" ファイル", "ファイル", "この", False),
        (" ファイル", "ファイル", "Open", True),
        (" ファイル", "ファイル", "", True),
    ],
)
def test_where_a_spelling_fits(spelled: str, term: str, before: str, fits: bool) -> None:
    assert Spelling((5,), spelled).fits(before, term) == fits


# --- glossaries -----------------------------------------------------------------------------------

SOURCE = "The hard disk is full. Disk files: file, FILE, profile."


def test_longer_entries_take_their_places_first() -> None:
    glossary = [("disk", "a"), ("hard disk", "b"), ("file", "c"), ("FILE", "d"), ("tape", "e")]
    found = occurring(glossary, SOURCE)
    parts = {i: [SOURCE[begin:end] for begin, end in places] for i, places in found.items()}
    assert parts == {0: ["Disk"], 1: ["hard disk"], 2: ["file", "FILE"]}


def test_an_entry_with_capitals_means_them() -> None:
    assert occurring([("File", "x")], SOURCE) == {}
    assert len(occurring([("FILE", "x")], SOURCE)[0]) == 1


def target(checkpoint: Checkpoint, source: str, prefix: str = "") -> Any:
    ids = checkpoint.tokenizer.encode_target(prefix)
    pieces = tuple(checkpoint.encode_source(source)) if source else ()
    return SimpleNamespace(start=(3, *ids), source=pieces, source_text=source)


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return Checkpoint(tiny_model)


@pytest.fixture(scope="module")
def glossary(checkpoint: Checkpoint) -> Glossary:
    description = checkpoint.description
    return Glossary(checkpoint.tokenizer, Vocabulary(1, description.never_generated, 376))


def test_what_a_target_must_contain(checkpoint: Checkpoint, glossary: Glossary) -> None:
    entries = (("disk", "file"), ("hard disk", "the  fox"), ("full", "file"))
    wanted = glossary.wanted(
        GenerationOptions(glossary=entries), target(checkpoint, SOURCE, "Die Ä")
    )
    assert wanted is not None
    assert [term.text for term in wanted.terms] == ["the fox", "file"]
    assert wanted.counts == (1, 2)
    assert wanted.prefix == "Die Ä"
    raw, pieces = SOURCE.encode(), checkpoint.encode_source(SOURCE)
    parts = [b"".join(raw[pieces[i].begin : pieces[i].end] for i in rows) for rows in wanted.rows]
    assert parts == [b"hard disk", b"fullDisk"]


def test_every_spelling_reads_as_the_term(checkpoint: Checkpoint, glossary: Glossary) -> None:
    for text in ("file", "Größe", "ファイル", "hard disk", "C++", "😀"):
        options = GenerationOptions(glossary=(("disk", text),))
        wanted = glossary.wanted(options, target(checkpoint, SOURCE))
        assert wanted is not None
        (term,) = wanted.terms
        assert term.length > 0
        context = checkpoint.tokenizer.encode_target("(")
        for spelling in term.spellings:
            read = checkpoint.tokenizer.decode([*context, *spelling.ids])
            assert read == f"({spelling.text}"
            assert spelling.text.strip().lower() == text.lower()


def test_without_its_terms_a_source_asks_for_nothing(
    checkpoint: Checkpoint, glossary: Glossary
) -> None:
    options = GenerationOptions(glossary=(("tape", "Band"),))
    assert glossary.wanted(options, target(checkpoint, SOURCE)) is None
    assert glossary.wanted(GenerationOptions(), target(checkpoint, "")) is None


def test_a_source_without_text_is_refused(checkpoint: Checkpoint, glossary: Glossary) -> None:
    with pytest.raises(FailedPreconditionError) as caught:
        glossary.wanted(GenerationOptions(glossary=(("a", "b"),)), target(checkpoint, ""))
    assert caught.value.reason == "NO_SOURCE_TEXT"


def test_terms_that_cannot_be_spelled_are_all_named(
    checkpoint: Checkpoint, glossary: Glossary
) -> None:
    suppressed = tuple(checkpoint.tokenizer.encode_target(" Menü"))
    entries = (("disk", "\u2581"), ("file", "file"), ("full", "Menü"), ("tape", "\u2581"))
    options = GenerationOptions(glossary=entries, suppressed_tokens=suppressed)
    with pytest.raises(InvalidArgumentError) as caught:
        glossary.wanted(options, target(checkpoint, SOURCE))
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["options.glossary[0].target", "options.glossary[2].target"]


def test_bad_words_are_ids_that_never_come(glossary: Glossary) -> None:
    options = GenerationOptions(bad_words=("file", "Datei", (7,), (8, 9)), suppressed_tokens=(5,))
    spelled = glossary.spelled(options)
    assert {5, 7} < {*spelled.suppressed_tokens}
    assert (8, 9) in spelled.suppressed_sequences
    assert all(len(sequence) > 1 for sequence in spelled.suppressed_sequences)
    assert glossary.spelled(GenerationOptions(top_k=5)) == GenerationOptions(top_k=5)


def test_of_a_bad_word_every_usual_spelling_is_bad(
    glossary: Glossary, checkpoint: Checkpoint
) -> None:
    encode, decode = checkpoint.tokenizer.encode_target, checkpoint.tokenizer.decode
    spelled = glossary.spelled(GenerationOptions(bad_words=(" file ", "Datei")))
    ways = {(token,) for token in spelled.suppressed_tokens} | {*spelled.suppressed_sequences}
    assert {decode([*way]).strip() for way in ways} == {"file", "Datei"}
    for text in ("file", "the file", "(file)", "Datei", "die Datei", "(Datei)"):
        ids = tuple(encode(text))
        held = [way for way in ways if way in {ids[i : i + len(way)] for i in range(len(ids))}]
        assert held, text


def test_terms_are_spelled_without_bad_words(glossary: Glossary) -> None:
    options = GenerationOptions(glossary=(("file", "Datei"),), bad_words=("Datei",))
    target: Any = SimpleNamespace(source_text="Open the file.", source=(), start=(3,))
    assert glossary.wanted(GenerationOptions(glossary=options.glossary), target)
    with pytest.raises(InvalidArgumentError, match=r"glossary\[0\].target: .*bad words aside"):
        glossary.wanted(glossary.spelled(options), target)
