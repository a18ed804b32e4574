"""What is guessed: copies in the order of the source, repetitions, and only what is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from splitformer.generation import Drafting, Produced, RowCosts, Target, row_costs_of
from splitformer.generation.copying import Copier
from splitformer.generation.drafting import NOWHERE, Look
from splitformer.generation.jacobi import WINDOW, Iteration
from splitformer.generation.odds import (
    AGREES,
    FIRST,
    KINDS,
    LONGEST,
    MATCH,
    POINTED,
    REPEATED,
    Odds,
    class_of,
)
from splitformer.model.tokenizer import INSIDE, NAME, SIGN, WORD, SourcePiece

SIZE = 100
WORDS = bytes((WORD,)) * SIZE
CHEAP, FAIR, DEAR = ([price] * 16 for price in (1e-9, 0.3, 0.5))


def drafting_of(**changes: Any) -> Drafting:
    values: dict[str, Any] = {"token_kinds": bytes(SIZE), "unusable": frozenset((0, 1))}
    return Drafting(RowCosts((3.0, 4.0)), True, **(values | changes))


def copier_of(source: Sequence[int], drafting: Drafting | None = None) -> Copier:
    state: Any = None
    detokenizer: Any = None
    target = Target((3,), state, detokenizer, 48)
    target.source = tuple(SourcePiece(token, 0, 0) for token in source)
    return Copier(target, drafting or drafting_of())


def said(*tokens: int) -> list[Produced]:
    return [Produced(token, "", 0.0) for token in tokens]


def after(
    copier: Copier, tokens: Sequence[int], prices: Sequence[float], *looks: Look
) -> list[int]:
    """What is guessed after the last of some tokens, each of them guessed at before."""
    for i in range(len(tokens)):
        copier.guess(said(*tokens[:i]), prices, looks[i - 1] if i and looks else NOWHERE)
    return copier.guess(said(*tokens), prices, looks[-1] if looks else NOWHERE)


def test_what_follows_in_the_source_is_copied() -> None:
    copier = copier_of([10, 11, 12, 13, 1])
    assert copier.guess([], CHEAP) == [10, 11, 12, 13], "the end token is no input"
    assert copier.guess(said(50), CHEAP) == []
    assert copier.guess(said(50, 10), CHEAP) == [11, 12, 13]
    assert copier.guess(said(50, 10), CHEAP[:2]) == [11, 12]
    assert copier.guess(said(50, 10, 11, 40), CHEAP) == []
    assert copier.guess(said(50, 10, 11, 40, 12), CHEAP) == [13]


def test_longer_matches_and_the_order_of_the_source_decide() -> None:
    source, one = [10, 11, 20, 10, 12, 21, 10, 13], CHEAP[:1]
    assert after(copier_of(source), [10], one) == [11]
    assert after(copier_of(source), [10, 11, 50, 10], one) == [12], "the next one"
    assert after(copier_of(source), [21, 10], one) == [13], "two tokens match"
    assert after(copier_of(source), [60, 13, 50, 10], one) == [11], "none is left"


def test_where_the_model_looks_a_copy_goes_on_or_begins() -> None:
    source, one = [10, 11, 20, 10, 12, 21, 10, 13], CHEAP[:1]
    for place, expected in ((0, 11), (3, 12), (6, 13)):
        assert after(copier_of(source), [10], one, (place, 0.9)) == [expected]
    assert after(copier_of(source), [50], CHEAP[:2], (1, 0.9)) == [20, 10], "nothing matches"
    assert after(copier_of(source), [10, 13], one, (6, 0.9), (7, 0.9)) == [], "the source is over"
    assert after(copier_of(source), [20], one, (99, 0.9)) == [10], "there is no such place"


def test_the_nearest_match_counts_if_the_model_looks_elsewhere() -> None:
    source = [10, 11, 20, 21, 10, 12, 22]
    assert after(copier_of(source), [10], CHEAP[:1], (2, 0.1)) == [12], "behind that place"
    drafting = drafting_of(token_kinds=bytes((SIGN,)) * 20 + WORDS[20:])
    assert after(copier_of(source, drafting), [10], [0.1], (1, 0.6)) == [12], "no word is copied"


def test_what_rests_on_more_is_guessed_first() -> None:
    """A match where the model looks, or a match elsewhere, or the place behind where it looks."""
    rates = Odds().rates
    for kind in range(KINDS):
        for length in range(1, LONGEST + 1):
            much = rates[class_of(AGREES + 2, length, kind)]
            assert much >= rates[class_of(AGREES, length, kind)] - 0.25
        pointed = [rates[class_of(POINTED + looked, 0, kind)] for looked in range(3)]
        assert pointed == sorted(pointed)
    strong, weak = class_of(AGREES + 2, 1, SIGN), class_of(MATCH, 1, SIGN)
    assert rates[strong] > rates[weak] == pytest.approx(0.3)


def test_repetitions_of_the_output_are_guessed() -> None:
    copier = copier_of([10, 11])
    assert copier.guess(said(60, 61, 62, 60), CHEAP) == [61, 62, 60]
    assert copier.guess(said(60, 61, 62, 60, 61), CHEAP[:2]) == [62, 60]


def test_a_source_of_another_vocabulary_is_left_alone() -> None:
    copier = copier_of([10, 11, 12], drafting_of(unusable=None))
    assert copier.guess([], CHEAP) == []
    assert copier.guess(said(10), CHEAP, (0, 0.9)) == []
    assert copier.guess(said(10, 12, 10), CHEAP, (1, 0.9)) == [12, 10]


def test_guesses_end_where_they_are_not_worth_it() -> None:
    source = range(10, 40)
    short = copier_of(source).guess(said(10), FAIR)
    long = copier_of(source).guess(said(*range(10, 20)), FAIR)
    assert 0 < len(short) < len(long) < 16
    words = drafting_of(token_kinds=WORDS)
    assert copier_of(source, words).guess(said(*range(10, 20)), DEAR) == []


def test_what_was_right_is_guessed_again() -> None:
    drafting = drafting_of(token_kinds=WORDS)
    for _ in range(300):  # titles and names, say
        after(copier_of(range(10, 40), drafting), range(10, 40), CHEAP)
    assert len(copier_of(range(10, 40), drafting).guess(said(10, 11), DEAR)) > 4
    for _ in range(40):
        wrong = [token for right in range(10, 40) for token in (right, 50)]
        after(copier_of(range(10, 40), drafting), wrong, CHEAP)
    assert copier_of(range(10, 40), drafting).guess(said(10), DEAR) == []


def test_odds_are_means_that_fade() -> None:
    odds, kind = Odds(), class_of(REPEATED, 3, INSIDE)
    for _ in range(10_000):
        odds.count(kind, True)
    assert odds.rates[kind] > 0.99
    for _ in range(10_000):
        odds.count(kind, False)
    assert odds.rates[kind] < 0.01
    assert class_of(REPEATED, LONGEST + 9, INSIDE) == class_of(REPEATED, LONGEST, INSIDE)


def test_every_class_has_odds_of_its_own() -> None:
    classes = [
        class_of(trust, length, kind)
        for trust in range(FIRST, REPEATED + 1)
        for length in range(LONGEST + 1)
        for kind in range(KINDS)
    ]
    assert sorted(classes) == list(range(len(Odds().rates)))


def test_only_a_source_of_many_short_tokens_promises_copies() -> None:
    kinds = bytes((WORD, NAME)[token % 2] if token < 50 else INSIDE for token in range(SIZE))
    drafting = drafting_of(token_kinds=kinds)
    state: Any = None
    target = Target((3,), state, state, 48)
    assert not drafting.promises(target), "nothing is known of its source"
    for ids, promised in (
        ([10, 60, 61, 62, 11], True),
        ([10, 60, 61, 11], True),
        ([10, 60, 12, 61, 11], False),
        ([10, 60, 12, 11], False),
        ([10, 500, 61], True),
    ):
        target.source = tuple(SourcePiece(token, 0, 0) for token in ids)
        assert drafting.promises(target) is promised
    assert not drafting_of(unusable=None).promises(target)


def test_rows_are_dearer_in_company() -> None:
    drafting = drafting_of()
    first = [(*drafting.prices(company), 1.0)[0] for company in (1, 2, 3, 64)]
    beginning = [0.06 * 3 * company / (2 + company) for company in (1, 2, 3)]
    rows = [1.4 / 3, 2.8 / 4, 4.2 / 5]
    expected = [row + once for row, once in zip(rows, beginning, strict=True)]
    assert first == pytest.approx([*expected, 1.0])
    assert drafting.prices(4) == drafting.prices(64) == (), "nobody looks for what cannot pay"
    assert Drafting().prices(1) == (), "nothing is worth guessing"


def test_the_first_rows_are_the_cheapest() -> None:
    prices = drafting_of().prices
    assert len(prices(1)) == 16
    bent = Drafting(RowCosts((10.0, 11.0, 12.0, 15.0, 25.0))).prices
    assert bent(1) == pytest.approx([0.2, 0.14, 0.42]), "the next would have to be certain"
    assert bent(2) == pytest.approx([(1.4 + 0.6) * 2 / 11, 1.4 * 2 * 3 / 11])


def test_a_window_takes_over_what_the_model_made_of_it() -> None:
    iteration = Iteration()
    assert iteration.guess(said(9), DEAR) == [9] * WINDOW
    iteration.learn([20, 21, 22, 23, 24], 0)
    assert iteration.guess(said(9, 20), DEAR) == [21, 22, 23, 24]
    iteration.learn([21, 22, 30, 31, 32], 2)
    assert iteration.guess(said(9, 20, 21, 22, 30), DEAR) == [31, 32, 30, 30]
    assert iteration.guess(said(9, 20, 21, 22, 30), DEAR[:1]) == [31]


def test_a_window_that_does_not_pay_rests() -> None:
    iteration, spent = Iteration(), 0
    for known in range(2000):
        guess = iteration.guess(said(*[9] * known), DEAR)
        if guess:
            spent += 1
            iteration.learn([5] * (len(guess) + 1), 0)
    assert 0 < spent < 100


def test_prices_end_a_guess_one_by_one() -> None:
    source = range(10, 40)
    rising = [CHEAP[0], CHEAP[0], 1.0, 1.0]
    assert copier_of(source).guess(said(10), rising) == [11, 12]


class Timed:
    """A decoder whose steps take as long as it is told, on a clock of its own."""

    def __init__(self, seconds: Any, positions: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = SimpleNamespace(d_model=4, max_positions=positions)
        self.seconds, self.now = seconds, 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr("splitformer.generation.row_cost.time", clock)

    def begin(self, memory: Any) -> Any:
        return SimpleNamespace(truncate=lambda length: None)

    def advance(self, tokens: Any, states: Any, outputs: Any) -> None:
        self.now += self.seconds(len(tokens[0]))


@pytest.mark.parametrize(
    ("seconds", "costs"),
    [
        (lambda rows: 2 + rows, {1: 3, 2: 4, 7: 9, 32: 34, 40: 42}),
        (lambda rows: 1, {1: 1, 2: 1.03, 32: 1.93, 101: 4}),
        (lambda rows: 10 if rows <= 16 else 26, {1: 10, 16: 14.5, 32: 26.0, 33: 26.71875}),
        (lambda rows: 10 + 2 * max(0, rows - 5), {2: 10.3, 5: 11.2, 8: 16, 9: 18}),
        (lambda rows: {1: 10, 2: 19, 3: 12}.get(rows, 4 * rows), {1: 10, 2: 11, 3: 12, 5: 20}),
    ],
)
def test_what_rows_cost_is_measured(
    seconds: Any, costs: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder: Any = Timed(seconds, 48, monkeypatch)
    measured = row_costs_of(decoder)
    assert {rows: measured.step(rows) for rows in costs} == pytest.approx(costs)
    steps = [measured.step(rows) for rows in range(1, 60)]
    rises = [more - less for less, more in pairwise(steps)]
    assert all(after >= before - 1e-9 for before, after in pairwise(rises))


def test_where_there_is_no_place_for_a_guess_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder: Any = Timed(lambda rows: 1 / 0, 1, monkeypatch)
    assert Drafting(row_costs_of(decoder)).prices(1) == ()
