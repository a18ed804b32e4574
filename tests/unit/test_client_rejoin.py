"""Pieces of a long text come back in order, whatever order they are translated in."""

from __future__ import annotations

import dataclasses
import random

import pytest

from splitformer_client.rejoin import Rejoiner
from splitformer_client.values import End, EndReason, Hypothesis, Token

PIECES = [["A", "b"], ["C"], [], ["D", "e", "f"]]
SEPARATORS = [" ", "\n\n", " ", ""]


def end(tokens: int, reason: EndReason = EndReason.EOS, text: str = "") -> End:
    return End(reason, tokens, tokens, steps=tokens + 1, log_probability=-1.0, text=text)


def events_of(pieces: list[list[str]]) -> list[list[Token | End]]:
    """Return every piece's events, as a decoder sends them."""
    return [
        [*(Token(i, i + 7, text, -0.5) for i, text in enumerate(piece)), end(len(piece))]
        for piece in pieces
    ]


def rejoin(order: list[int], language: str = "de") -> list[Token | End]:
    rejoiner = Rejoiner(language, SEPARATORS)
    waiting = [list(events) for events in events_of(PIECES)]
    return [out for piece in order for out in rejoiner.add(piece, waiting[piece].pop(0))]


def any_order(seed: int) -> list[int]:
    order = [number for number, events in enumerate(events_of(PIECES)) for _ in events]
    random.Random(seed).shuffle(order)
    return order


def test_pieces_are_numbered_through_and_separated() -> None:
    *tokens, last = rejoin(sorted(any_order(0)))
    assert [token.text for token in tokens if isinstance(token, Token)] == [
        "A", "b", " C", "\n\n D", "e", "f",
    ]  # fmt: skip
    assert [token.index for token in tokens if isinstance(token, Token)] == list(range(6))
    assert isinstance(last, End)
    assert (last.tokens, last.steps, last.log_probability) == (6, 10, -4.0)


def test_no_space_between_japanese_sentences() -> None:
    tokens = rejoin(sorted(any_order(0)), "ja")
    assert "".join(token.text for token in tokens) == "AbC\n\nDef"


@pytest.mark.parametrize("seed", range(20))
def test_order_of_arrival_does_not_matter(seed: int) -> None:
    assert rejoin(any_order(seed)) == rejoin(sorted(any_order(seed)))


def test_the_first_piece_is_passed_on_at_once() -> None:
    rejoiner = Rejoiner("de", SEPARATORS)
    token = Token(0, 7, "A", -0.5)
    assert list(rejoiner.add(1, token)) == []
    assert list(rejoiner.add(0, token)) == [token]


def test_a_single_piece_is_left_as_it_is() -> None:
    rejoiner = Rejoiner("ja", [""])
    token, last = Token(0, 7, "A", -0.5, aligned_source=(1,)), end(1, text="�")
    assert next(rejoiner.add(0, token)) is token
    assert next(rejoiner.add(0, last)) is last


def test_text_of_an_end_comes_before_the_next_piece() -> None:
    rejoiner = Rejoiner("de", [" ", ""])
    assert list(rejoiner.add(0, end(0, text="�"))) == []
    assert [token.text for token in rejoiner.add(1, Token(0, 7, "B", -0.5))] == ["� B"]
    (last,) = rejoiner.add(1, end(1, text="!"))
    assert last.text == "!"


def test_a_cut_off_piece_is_not_hidden() -> None:
    rejoiner = Rejoiner("de", [" ", ""])
    list(rejoiner.add(0, end(3, EndReason.LENGTH)))
    (last,) = rejoiner.add(1, end(2))
    assert isinstance(last, End)
    assert last.reason is EndReason.LENGTH


def found(*scores: float, name: str) -> tuple[Hypothesis, ...]:
    """Hypotheses of a piece, one token each."""
    return tuple(
        Hypothesis(f"{name}{i}", (Token(0, i, f"{name}{i}", score),), score, EndReason.EOS)
        for i, score in enumerate(scores)
    )


def test_the_best_hypotheses_of_the_whole_are_made_of_those_of_the_pieces() -> None:
    rejoiner = Rejoiner("de", [" ", ""])
    first = dataclasses.replace(end(0), hypotheses=found(-1.0, -2.0, -9.0, name="a"))
    second = dataclasses.replace(end(0), hypotheses=found(-3.0, -3.5, -7.0, name="b"))
    assert list(rejoiner.add(0, first)) == []
    (whole,) = rejoiner.add(1, second)
    assert isinstance(whole, End)
    assert [h.text for h in whole.hypotheses] == ["a0 b0", "a0 b1", "a1 b0"]
    assert [h.score for h in whole.hypotheses] == [-4.0, -4.5, -5.0]
    assert [(t.index, t.text) for t in whole.hypotheses[1].tokens] == [(0, "a0"), (1, " b1")]


def test_pieces_without_hypotheses_have_none_together() -> None:
    rejoiner = Rejoiner("de", [" ", ""])
    list(rejoiner.add(0, dataclasses.replace(end(0), hypotheses=found(-1.0, name="a"))))
    (whole,) = rejoiner.add(1, end(0))
    assert isinstance(whole, End)
    assert whole.hypotheses == ()
