"""Words spelled letter by letter, targets made of symbols."""

from __future__ import annotations

import pytest

from splitformer.errors import ConfigurationError, InvalidArgumentError
from splitformer.model.symbols import SymbolTokenizer

LETTERS = {"a": 3, "e": 4, "t": 5, "'": 6}
SYMBOLS = {"AE": 4, "T": 5}


@pytest.fixture
def tokenizer() -> SymbolTokenizer:
    return SymbolTokenizer(LETTERS, SYMBOLS)


@pytest.mark.parametrize("text", ["ate", "ATE", " ate\n", "Àté", "ａｔｅ", "A\u0300te\u0301"])
def test_case_width_accents_and_outer_space_do_not_matter(
    tokenizer: SymbolTokenizer, text: str
) -> None:
    assert [piece.id for piece in tokenizer.pieces(text)] == [3, 5, 4]


def test_spans_are_bytes_of_the_text(tokenizer: SymbolTokenizer) -> None:
    found = [(piece.begin, piece.end) for piece in tokenizer.pieces("\u3000té\u2019a")]
    assert found == [(3, 4), (4, 6), (6, 9), (9, 10)]


@pytest.mark.parametrize("text", ["at eat", "a1", "a😀", "ペン", "a\0"])
def test_other_characters_are_refused(tokenizer: SymbolTokenizer, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"source.text: must consist of a e t ', got"):
        tokenizer.pieces(text)


def test_symbols_are_joined_by_spaces_and_read_back(tokenizer: SymbolTokenizer) -> None:
    assert tokenizer.decode([4, 5, 5]) == "AE T T"
    assert tokenizer.encode_target("AE T  T") == [4, 5, 5]
    assert tokenizer.decode([0, 3, 4]) == "AE"
    with pytest.raises(InvalidArgumentError, match="text: must consist of AE T, got 'X'"):
        tokenizer.encode_target("AE X")


def test_white_space_gives_nothing(tokenizer: SymbolTokenizer) -> None:
    assert tokenizer.pieces(" \n") == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"letters": LETTERS}, "tokenizer: symbols must be an object, got None"),
        ({"letters": [1], "symbols": SYMBOLS}, "tokenizer: letters must be an object"),
        ({"letters": {}, "symbols": SYMBOLS}, "tokenizer: letters must map to integers"),
        ({"letters": {"a": True}, "symbols": SYMBOLS}, "tokenizer: letters must map to integers"),
    ],
)
def test_broken_tables_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SymbolTokenizer.from_dict(values)
