"""Where words begin and end, in scripts with and without spaces."""

from __future__ import annotations

import pytest

from splitformer.words import around, inside, occurrences


@pytest.mark.parametrize(
    ("text", "part", "word"),
    [
        ("Open the file.", "pe", "Open"),
        ("Open the file.", "the fi", "the file"),
        ("Open the file.", ".", "."),
        ("l'éte\u0301 re-lu", "te", "éte\u0301"),
        ("set my_value2 now", "val", "my_value2"),
        ("हिन्दी में", "न", "हिन्दी"),  # vowel signs are no letters, and belong to the word
        ("ファイルを開く", "ル", "ル"),
        ("파일을 엽니다", "파일", "파일"),
        ("เปิดไฟล์", "ไฟ", "ไฟ"),
        ("USBを抜く", "SB", "USB"),
    ],
)
def test_a_part_is_widened_to_its_words(text: str, part: str, word: str) -> None:
    begin = text.index(part)
    wide, end = around(text, begin, begin + len(part))
    assert text[wide:end] == word


def test_nothing_is_inside_a_word_at_the_ends_of_a_text() -> None:
    assert [inside("ab", place) for place in range(3)] == [False, True, False]


@pytest.mark.parametrize(
    ("term", "text", "found"),
    [
        ("file", "file, files, profile, a file", ["file", "file"]),
        ("file", "File FILE", []),
        ("hard  disk", "hard\ndisk; harddisk", ["hard\ndisk"]),
        ("C++", "C++11 or C++", ["C++", "C++"]),  # a plus sign is no part of a word
        ("ファイル", "プロファイルを開く", ["ファイル"]),
        ("파일", "파일을 열기", ["파일"]),
        (".", "...", [".", ".", "."]),
    ],
)
def test_terms_are_found_as_whole_words(term: str, text: str, found: list[str]) -> None:
    assert [text[begin:end] for begin, end in occurrences(term, text)] == found


def test_capital_letters_matter_or_do_not() -> None:
    assert len([*occurrences("file", "File FILE file")]) == 1
    assert len([*occurrences("file", "File FILE file", any_case=True)]) == 3
