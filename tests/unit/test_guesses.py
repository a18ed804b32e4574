"""What is guessed: copies in the order of the source, repetitions, and only what is worth it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from splitformer.generation import Drafting, Produced, Target
from splitformer.generation.copying import Copier
from splitformer.generation.drafting import LONGEST_MATCH, Odds, class_of
from splitformer.generation.jacobi import WINDOW, Iteration
from splitformer.generation.row_cost import overhead_of
from splitformer.model.tokenizer import SourcePiece

SIZE = 100
CHEAP, DEAR = 1e-9, 0.5


def drafting_of(**changes: Any) -> Drafting:
    values: dict[str, Any] = {"begins_word": bytes(SIZE), "unusable": frozenset((0, 1))}
    return Drafting(2.0, True, **(values | changes))


def copier_of(source: Sequence[int], drafting: Drafting | None = None) -> Copier:
    state: Any = None
    detokenizer: Any = None
    target = Target((3,), state, detokenizer, 48)
    target.source = tuple(SourcePiece(token, 0, 0) for token in source)
    return Copier(target, drafting or drafting_of())


def said(*tokens: int) -> list[Produced]:
    return [Produced(token, "", 0.0) for token in tokens]


def test_what_follows_in_the_source_is_copied() -> None:
    copier = copier_of([10, 11, 12, 13, 1])
    assert copier.guess([], 9, CHEAP) == []
    assert copier.guess(said(50), 9, CHEAP) == []
    assert copier.guess(said(50, 10), 9, CHEAP) == [11, 12, 13], "the end token is no input"
    assert copier.guess(said(50, 10), 2, CHEAP) == [11, 12]
    assert copier.guess(said(50, 10, 11, 40), 9, CHEAP) == []
    assert copier.guess(said(50, 10, 11, 40, 12), 9, CHEAP) == [13]


def test_longer_matches_and_the_order_of_the_source_decide() -> None:
    source = [10, 11, 20, 10, 12, 21, 10, 13]
    assert copier_of(source).guess(said(10), 1, CHEAP) == [11]
    assert copier_of(source).guess(said(10, 11, 50, 10), 1, CHEAP) == [12], "the next one"
    assert copier_of(source).guess(said(21, 10), 1, CHEAP) == [13], "two tokens match"
    assert copier_of(source).guess(said(10, 13, 50, 10), 1, CHEAP) == [11], "none is left"


def test_repetitions_of_the_output_are_guessed() -> None:
    copier = copier_of([10, 11])
    assert copier.guess(said(60, 61, 62, 60), 9, CHEAP) == [61, 62, 60]
    assert copier.guess(said(60, 61, 62, 60, 61), 2, CHEAP) == [62, 60]


def test_a_source_of_another_vocabulary_is_left_alone() -> None:
    copier = copier_of([10, 11, 12], drafting_of(unusable=None))
    assert copier.guess(said(10), 9, CHEAP) == []
    assert copier.guess(said(10, 12, 10), 9, CHEAP) == [12, 10]


def test_guesses_end_where_they_are_not_worth_it() -> None:
    source = range(10, 40)
    short = copier_of(source).guess(said(10), 16, 0.3)
    long = copier_of(source).guess(said(*range(10, 20)), 16, 0.3)
    assert 0 < len(short) < len(long) < 16
    words = drafting_of(begins_word=b"\1" * SIZE)
    assert copier_of(source, words).guess(said(*range(10, 20)), 16, DEAR) == []


def test_what_was_right_is_guessed_again() -> None:
    drafting = drafting_of(begins_word=b"\1" * SIZE)
    for _ in range(300):  # titles and names, say
        copier_of(range(10, 40), drafting).guess(said(*range(10, 40)), 16, DEAR)
    assert len(copier_of(range(10, 40), drafting).guess(said(10, 11), 16, DEAR)) > 4
    for _ in range(200):
        copier_of(range(10, 40), drafting).guess(said(10, 50, 11, 51, 12, 52), 16, DEAR)
    assert copier_of(range(10, 40), drafting).guess(said(10), 16, DEAR) == []


def test_odds_are_means_that_fade() -> None:
    odds, kind = Odds(), class_of(3, 1, 0)
    for _ in range(10_000):
        odds.count(kind, True)
    assert odds.rates[kind] > 0.99
    for _ in range(10_000):
        odds.count(kind, False)
    assert odds.rates[kind] < 0.01
    kinds = {
        class_of(length, repeated, word)
        for length in range(1, LONGEST_MATCH + 1)
        for repeated in (0, 1)
        for word in (0, 1)
    }
    assert len(kinds) == 4 * LONGEST_MATCH
    assert max(kinds) < len(odds.rates)


def test_only_a_source_of_many_short_tokens_promises_copies() -> None:
    words = bytes(1 if token < 50 else 0 for token in range(SIZE))
    drafting = drafting_of(begins_word=words)
    state: Any = None
    target = Target((3,), state, state, 48)
    assert not drafting.promises(target), "nothing is known of its source"
    for ids, promised in (
        ([10, 60, 61, 62, 11], True),
        ([10, 60, 61, 11], False),
        ([10, 60, 12, 11], False),
        ([10, 500, 61], True),
    ):
        target.source = tuple(SourcePiece(token, 0, 0) for token in ids)
        assert drafting.promises(target) is promised
    assert not drafting_of(unusable=None).promises(target)


def test_rows_are_dearer_in_company() -> None:
    prices = [drafting_of().price(company) for company in (1, 2, 8, 64)]
    assert prices == sorted(prices)
    assert prices[0] < 0.5
    assert prices[-1] > 1
    assert Drafting().price(1) > 1, "nothing is worth guessing"


def test_a_window_takes_over_what_the_model_made_of_it() -> None:
    iteration = Iteration()
    assert iteration.guess(said(9), 16, 0.4) == [9] * WINDOW
    iteration.learn([20, 21, 22, 23, 24], 0)
    assert iteration.guess(said(9, 20), 16, 0.4) == [21, 22, 23, 24]
    iteration.learn([21, 22, 30, 31, 32], 2)
    assert iteration.guess(said(9, 20, 21, 22, 30), 16, 0.4) == [31, 32, 30, 30]
    assert iteration.guess(said(9, 20, 21, 22, 30), 1, 0.4) == [31]


def test_a_window_that_does_not_pay_rests() -> None:
    iteration, spent = Iteration(), 0
    for known in range(2000):
        guess = iteration.guess(said(*[9] * known), 16, 0.4)
        if guess:
            spent += 1
            iteration.learn([5] * (len(guess) + 1), 0)
    assert 0 < spent < 100


class Timed:
    """A decoder whose steps take as long as it is told, on a clock of its own."""

    config = SimpleNamespace(d_model=4, max_positions=48)

    def __init__(self, step: float, row: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.step, self.row, self.now = step, row, 0.0
        clock = SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr("splitformer.generation.row_cost.time", clock)

    def begin(self, memory: Any) -> Any:
        return SimpleNamespace(truncate=lambda length: None)

    def advance(self, tokens: Any, states: Any, outputs: Any) -> None:
        self.now += self.step + self.row * len(tokens[0])


@pytest.mark.parametrize(("step", "row", "overhead"), [(2, 1, 2), (0, 1, 0), (1, 0, 16)])
def test_overhead_is_counted_in_rows(
    step: float, row: float, overhead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder: Any = Timed(step, row, monkeypatch)
    assert overhead_of(decoder) == pytest.approx(overhead)
