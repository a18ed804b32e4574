"""Parts of texts in characters and bytes, and words that belong together."""

from __future__ import annotations

import pytest

from splitformer.v1 import tensor_pb2
from splitformer_client.alignment import align_words
from splitformer_client.spans import Places, Rows, Span
from splitformer_client.values import Token

TEXT = "Où est 文書?"


def header(text: str, *spans: tuple[int, int]) -> tensor_pb2.MemoryHeader:
    tokens = [tensor_pb2.SourceToken(id=5, begin=begin, end=end) for begin, end in spans]
    return tensor_pb2.MemoryHeader(source_text=text, source_tokens=tokens)


@pytest.mark.parametrize("text", [TEXT, "Open the file."])
def test_characters_and_bytes_meet(text: str) -> None:
    places, raw = Places(text), text.encode()
    for begin in range(len(text) + 1):
        for end in range(begin, len(text) + 1):
            span = places.span(begin, end)
            assert raw[span.byte_begin : span.byte_end].decode() == span.of(text)
            assert places.span_of_bytes(span.byte_begin, span.byte_end) == span


def test_bytes_within_a_character_are_the_whole_character() -> None:
    begin = len("Où est ".encode())
    for first in range(3):
        span = Places(TEXT).span_of_bytes(begin + first, begin + first + 1)
        assert span.of(TEXT) == "文"


def test_rows_without_text_stand_for_nothing() -> None:
    rows = Rows(header(TEXT, (0, 0), (0, 3), (3, 7), (len(TEXT.encode()),) * 2))
    assert [span.of(TEXT) for span in rows.spans([0, 1, 2, 3, 9])] == ["Où", " est"]
    assert Rows(header("", (0, 3))).spans([0]) == ()


def token(index: int, text: str, *spans: tuple[int, int]) -> Token:
    places = Places("Open the file.")
    aligned = tuple(places.span(*span) for span in spans)
    return Token(index, index, text, -1.0, aligned_source=(0,), aligned_spans=aligned)


def aligned(*tokens: Token) -> list[tuple[str, str]]:
    target = "".join(each.text for each in tokens)
    pairs = align_words("Open the file.", tokens)
    return [(each.source.of("Open the file."), each.target.of(target)) for each in pairs]


def test_tokens_of_a_word_are_one() -> None:
    found = aligned(
        token(0, "Öff", (0, 2)),
        token(1, "nen", (2, 4)),
        token(2, " Sie"),
        token(3, " die", (4, 8)),
        token(4, " Datei", (8, 11), (11, 13)),
        token(5, ".", (13, 14)),
    )
    assert found == [("Open", "Öffnen"), ("the", "die"), ("file", "Datei"), (".", ".")]


def test_a_word_may_belong_to_several() -> None:
    found = aligned(token(0, "ファイル", (8, 13)), token(1, "を"), token(2, "開く", (0, 4), (4, 8)))
    assert found == [("file", "ファイル"), ("Open", "開く"), ("the", "開く")]


def test_what_aligns_with_part_of_a_character_comes_with_the_character() -> None:
    assert aligned(token(0, "", (8, 13)), token(1, ""), token(2, "文")) == [("file", "文")]


def test_nothing_is_told_of_white_space() -> None:
    assert aligned(token(0, " ", (8, 13)), token(1, "a", (4, 5))) == [("file", "a")]


def test_a_span_behind_another() -> None:
    assert Span(1, 2, 1, 4).behind(Span(10, 20, 12, 30)) == Span(11, 12, 13, 16)
