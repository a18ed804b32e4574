"""Cutting long texts and putting their translations together again."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from splitformer_client.sentences import Sentence, has_paragraphs, separator_in, split


def rejoined(sentences: list[Sentence]) -> str:
    return "".join(sentence.text + sentence.separator for sentence in sentences)


def test_split_keeps_the_white_space_between_sentences() -> None:
    text = "Hello Dr. Smith. How are you?\n\nA new paragraph.  Two spaces!\tA tab?"
    assert split(text) == [
        Sentence("Hello Dr. Smith.", " "),
        Sentence("How are you?", "\n\n"),
        Sentence("A new paragraph.", "  "),
        Sentence("Two spaces!", "\t"),
        Sentence("A tab?"),
    ]


def test_split_leaves_out_the_white_space_around_the_text() -> None:
    assert split("  \n One. Two. \n") == [Sentence("One.", " "), Sentence("Two.")]


@pytest.mark.parametrize("text", ["", "   ", "\n\n\t"])
def test_nothing_to_split(text: str) -> None:
    assert split(text) == []


def test_an_unknown_language_is_split_like_english() -> None:
    assert split("One. Two.", "x-unknown") == split("One. Two.", "en")


@pytest.mark.parametrize(
    ("text", "divided"),
    [("One.\n\nTwo.", True), ("One.\n \t\nTwo.", True), ("One.\nTwo.\n\n", False), ("", False)],
)
def test_a_blank_line_inside_makes_paragraphs(text: str, divided: bool) -> None:
    assert has_paragraphs(text) == divided


@given(st.text(st.sampled_from(list("aB .?!\n\t。？é\r")), max_size=60))
def test_split_loses_nothing(text: str) -> None:
    assert rejoined(split(text)) == text.strip()


@pytest.mark.parametrize(
    ("language", "source", "target"),
    [
        ("ja", " ", ""),
        ("zh-Hant", " ", ""),
        ("zho_Hans", " ", ""),
        ("de", " ", " "),
        ("de", "", " "),  # the source was Japanese
        ("ja", "", ""),
        ("ja", "\n\n", "\n\n"),
        ("de", "\n", "\n"),
        ("ja", "  ", "  "),
        ("jam", " ", " "),  # Jamaican Creole, not Japanese
    ],
)
def test_separator_between_translated_sentences(language: str, source: str, target: str) -> None:
    assert separator_in(language, source) == target
