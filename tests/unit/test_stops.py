"""Stop strings: found across tokens, cut exactly, and nothing is shown that is cut later."""

from __future__ import annotations

import random

import pytest

from splitformer.generation import Produced, Stops


def tokens(*pieces: str) -> list[Produced]:
    return [Produced(i, piece, -1.0) for i, piece in enumerate(pieces)]


def shown(stops: Stops, produced: list[Produced]) -> list[str]:
    return [stops.cut(i, token).text for i, token in enumerate(produced)]


def test_a_string_across_three_tokens() -> None:
    stops, produced = Stops(["END"]), tokens("one ", "E", "N", "D two")
    for count, certain in ((1, 1), (2, 1), (3, 1)):
        stops.follow(produced[:count])
        assert (stops.at, stops.certain) == (None, certain)
    stops.follow(produced)
    assert stops.at == 4
    assert stops.certain == 4
    assert shown(stops, produced) == ["one ", "", "", ""]


def test_what_turned_out_harmless_is_let_go() -> None:
    stops = Stops(["END"])
    stops.follow(tokens("E", "N"))
    assert stops.certain == 0
    stops.follow(tokens("E", "N", "X"))
    assert stops.certain == 3


def test_a_token_is_cut_where_the_string_begins() -> None:
    stops, produced = Stops(["b"]), tokens("abc", "d")
    stops.follow(produced[:1])
    assert shown(stops, produced[:1]) == ["a"]


def test_the_first_of_several_strings_counts() -> None:
    stops = Stops(["cd", "bcde"])
    stops.follow(tokens("abcde"))
    assert stops.at == 1


@pytest.mark.parametrize("seed", range(200))
def test_whatever_the_tokens_the_text_is_that_before_the_first_string(seed: int) -> None:
    chance = random.Random(seed)
    strings = ["".join(chance.choices("ab", k=chance.randint(1, 4))) for _ in range(2)]
    produced = tokens(*("".join(chance.choices("ab", k=chance.randint(0, 3))) for _ in range(9)))
    stops, out = Stops(strings), list[str]()
    for count in range(1, len(produced) + 1):
        stops.follow(produced[:count])
        out += [stops.cut(i, produced[i]).text for i in range(len(out), stops.certain)]
        if stops.at is not None:
            break
    seen = "".join(token.text for token in produced[:count])
    ends = [seen.find(string) for string in strings if string in seen]
    if ends:
        assert "".join(out) == seen[: min(ends)]
    else:
        assert seen.startswith("".join(out))
        assert not any(string in seen for string in strings)
