"""Spans are true and text comes back piece by piece, whatever the characters."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from splitformer.errors import ConfigurationError
from splitformer.model.languages import Frame
from splitformer.model.sentencepiece import SentencePieceTokenizer
from splitformer.model.tokenizer import INSIDE, NAME, SIGN, WORD, Surface, Tokenizer
from tests.support.checkpoints import SENTENCES


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return opened(tiny_model / "tokenizer.model")


def opened(path: Path) -> Tokenizer:
    return SentencePieceTokenizer(path.read_bytes(), path.name)


END = Frame(after=(1,))
TEXTS = [*SENTENCES, "Emoji 😀👍🏽 and café", "%s of {name} <b>x</b>", "𝔘𝔫𝔦 ｆｕｌｌ，。"]


@pytest.mark.parametrize("text", TEXTS)
def test_round_trip(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode_target(text)) == text


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_joined_are_the_whole_and_each_is_valid(tokenizer: Tokenizer, text: str) -> None:
    detokenizer = tokenizer.detokenizer()
    pieces = [detokenizer.add(token) for token in tokenizer.encode_target(text)]
    assert "".join(pieces) + detokenizer.finish() == text
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("text", ["日本語 café 😀!", " leading", "a\tb\nc", "two  spaces"])
def test_spans_cover_the_source_bytes(tokenizer: Tokenizer, text: str) -> None:
    *pieces, end = tokenizer.encode_source(text, END)
    raw = text.encode()
    covered = b"".join(raw[piece.begin : piece.end] for piece in pieces)
    assert covered.split() == raw.split()
    assert all(a.end <= b.begin or a.end == b.end for a, b in pairwise(pieces))
    assert (end.id, end.begin, end.end) == (1, len(raw), len(raw))


def test_white_space_alone_gives_only_the_end(tokenizer: Tokenizer) -> None:
    for text in ("", "   ", "\n\t \r\n"):
        assert [piece.id for piece in tokenizer.encode_source(text, END)] == [1]


def test_text_cannot_spell_a_control_token(tokenizer: Tokenizer) -> None:
    ids = [piece.id for piece in tokenizer.encode_source("<ja> <pad> </s> <de>x", END)][:-1]
    assert not set(ids) & set(range(8))


def test_an_incomplete_character_is_held_back_and_then_replaced(tokenizer: Tokenizer) -> None:
    start_of_emoji = tokenizer.encode_target("😀")[:-1]
    detokenizer = tokenizer.detokenizer()
    assert "".join(detokenizer.add(token) for token in start_of_emoji) == ""
    assert detokenizer.finish() == "\ufffd"
    again = tokenizer.detokenizer()
    texts = [again.add(t) for t in [*start_of_emoji, *tokenizer.encode_target("a")]]
    assert "".join(texts) == "\ufffd a"


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match=r"tokenizer: cannot read broken\.model"):
        opened(broken)


@given(st.lists(st.integers(0, 399), max_size=40))
def test_any_ids_at_all_give_text(tiny_model: Path, ids: list[int]) -> None:
    tokenizer = _cached(tiny_model)
    ids = [token % tokenizer.target_size for token in ids]
    tokenizer.decode(ids).encode()


_CACHE: dict[Path, Tokenizer] = {}


def _cached(folder: Path) -> Tokenizer:
    if folder not in _CACHE:
        _CACHE[folder] = opened(folder / "tokenizer.model")
    return _CACHE[folder]


def test_kinds_of_tokens(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[Surface, int] = {
        **dict.fromkeys([" the", " the2", " straße"], WORD),
        **dict.fromkeys([" The", " DE", " 日本", b" Name"], NAME),
        **dict.fromkeys(["ing", "B2", "語", b"ed"], INSIDE),
        **dict.fromkeys([" ", " (", "_", "12", " 7", "", b"\xe6"], SIGN),
    }
    monkeypatch.setattr(tokenizer, "_surfaces", list(kinds))
    assert tokenizer.token_kinds(len(kinds)) == bytes(kinds.values())
    assert tokenizer.token_kinds(len(kinds) + 2) == bytes([*kinds.values(), SIGN, SIGN])
    assert tokenizer.token_kinds(2) == bytes([WORD, WORD]), "ids of the source alone"
