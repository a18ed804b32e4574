"""Drawing from a few candidates is drawing from all tokens."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from splitformer.generation import (
    GenerationOptions,
    Sequential,
    Target,
    Vocabulary,
    choosing,
    run,
)
from splitformer.generation.filters import Row, likeliest
from splitformer.generation.rules import Rules
from splitformer.generation.seen import Seen
from splitformer.generation.selectors import (
    draw_of,
    needs_row,
    select,
    shortlist,
    weight_of_all,
)
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.drawing import reference_id, reference_place, uniform
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.native import Draw, drawn_place
from tests.support.native import needs_native
from tests.unit.test_generation import VOCABULARY, checkpoint, logits, target_of

__all__ = ["checkpoint"]

Place = Callable[[Draw, NDArray[np.float64], NDArray[Any]], int]


def test_draws_are_the_first_numbers_of_philox_at_the_position() -> None:
    for seed, position in ((0, 0), (5, 31), (5, 32), (2**64 - 1, 100), (2**40 + 3, 1023)):
        generator = np.random.Generator(np.random.Philox(key=seed, counter=position))
        assert uniform(seed, position) == float(generator.random())


SAMPLING: list[dict[str, Any]] = [
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 12, "temperature": 0.3},
    {"top_k": 20, "top_p": 0.7, "temperature": 1.7},
    {"top_k": 20, "top_p": 1.0, "min_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.9, "temperature": 0.5},
    {"top_p": 0.6, "min_p": 0.2},
    {"min_p": 0.1},
    {"min_p": 0.4, "temperature": 2.0},
]


PLACES = [
    reference_place,
    pytest.param(
        lambda draw, values, ids: drawn_place(
            draw, array("d", values.tolist()), array("i", ids.tolist())
        ),
        marks=needs_native,
    ),
]
places = pytest.mark.parametrize("place_of", PLACES, ids=["numpy", "native"])


def a_draw(row: Row, options: GenerationOptions, position: int) -> Draw:
    """How to draw a token whose row is known."""
    total = weight_of_all(row, options) if needs_row(options) else math.nan
    point = uniform(options.seed or 0, position)
    return draw_of(options)._replace(point=point, total=total)


@places
@pytest.mark.parametrize("case", SAMPLING, ids=str)
def test_a_shortlist_draws_what_the_whole_row_does(case: dict[str, Any], place_of: Place) -> None:
    options, answered = GenerationOptions(seed=3, **case), 0
    for seed in range(40):
        row = logits(seed).round(decimals=seed % 3 + 1)  # with some equals among them
        for count in (6, 13, 21, VOCABULARY):
            best = likeliest(row, count)
            place = place_of(
                a_draw(row, options, seed), np.array(best.logits, np.float64), np.array(best.ids)
            )
            answered += place >= 0
            assert place < 0 or best.ids[place] == select(row, options, seed)
    assert answered > 20


@pytest.mark.parametrize("case", [*SAMPLING, {}, {"temperature": 0.4}, {"min_p": 0.0}], ids=str)
def test_all_tokens_draw_what_the_whole_row_does(case: dict[str, Any]) -> None:
    options = GenerationOptions(seed=3, **{"temperature": 1.0, **case})
    for seed in range(40):
        row = logits(seed)
        row[seed % VOCABULARY] = -np.inf
        draw, expected = a_draw(row, options, seed), select(row, options, seed)
        if not shortlist(options):
            assert reference_id(draw, row) == expected
        best = likeliest(row, VOCABULARY)
        place = reference_place(draw, np.array(best.logits), np.array(best.ids), complete=True)
        if shortlist(options):
            assert best.ids[place] == expected


@needs_native
def test_the_library_draws_as_numpy_does() -> None:
    numbers = np.random.default_rng(0)
    missed = 0
    for _ in range(3000):
        count = int(numbers.integers(1, 65))
        values = -np.sort(-numbers.normal(0, 3, count).round(int(numbers.integers(0, 4))))
        ids = numbers.permutation(500)[:count]
        ids = ids[np.lexsort((ids, -values))]
        chosen = numbers.random(3) < 0.6
        k, p, least = int(numbers.integers(1, 70)), numbers.random(), numbers.random() / 3
        draw = Draw(
            temperature=float(numbers.random() * 2 + 0.01),
            top_k=k if chosen[0] else math.nan,
            top_p=p if chosen[1] else math.nan,
            min_p=least if chosen[2] else math.nan,
            point=float(numbers.random()),
            total=float(numbers.random() * 20) if chosen[1] and not chosen[0] else math.nan,
        )
        place = drawn_place(draw, array("d", values.tolist()), array("i", ids.tolist()))
        missed += place < 0
        assert place == reference_place(draw, values, ids)
    assert 300 < missed < 2700


@places
def test_no_answer_where_others_may_be_as_likely(place_of: Place) -> None:
    def taken(ids: list[int], values: list[float], total: float = math.nan, **case: Any) -> int:
        draw = draw_of(GenerationOptions(seed=0, **case))._replace(point=0.5, total=total)
        return place_of(draw, np.array(values), np.array(ids))

    assert taken([7, 3, 9], [1.0, 0.5, 0.5], top_k=2) < 0
    assert taken([7, 3], [1.0, 0.5], top_k=2) < 0
    assert taken([7, 3], [1.0, 0.5], top_k=2, top_p=0.5, min_p=0.9) < 0
    assert taken([7, 3, 9], [1.0, 0.5, 0.4], top_k=2) >= 0
    assert taken([7, 3], [1.0, 0.9], min_p=0.1) < 0
    assert taken([7, 3], [1.0, 0.9], total=30.0, top_p=0.9) < 0
    assert taken([], [], top_k=2) < 0


@pytest.mark.parametrize("case", [*SAMPLING, {}, {"temperature": 0.7}, {"top_k": 300}], ids=str)
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"repetition_penalty": 1.3, "suppressed_tokens": (300, 301)},
        {"repetition_penalty": 0.7, "no_repeat_ngram_size": 2},
        {"suppressed_tokens": (9, 300, 301), "no_repeat_ngram_size": 1},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 1, "alternatives": 2},
        {"repetition_penalty": 0.6, "alternatives": 2},
    ],
    ids=["plain", "few", "row", "bans", "told", "told row"],
)
@pytest.mark.parametrize("hope", [0, 8])
def test_asking_for_little_chooses_what_looking_at_everything_does(
    checkpoint: Checkpoint,
    case: dict[str, Any],
    filters: dict[str, Any],
    hope: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "_HOPE", hope)
    options = GenerationOptions(seed=5, min_new_tokens=3, **case, **filters)
    description = checkpoint.description
    vocabulary = Vocabulary(
        description.eos_id,
        description.never_generated,
        description.architecture.target_vocabulary_size,
    )
    decoder = checkpoint.load_decoder()
    target = target_of(checkpoint, decoder, (3, 20))
    again = Target(target.start, target.state.afresh(), checkpoint.tokenizer.detokenizer(), 48)
    run(TorchDecoder(decoder), Sequential(target, options, 12, vocabulary), vocabulary.never)
    while again.end is None and len(again.produced) < 12:
        seen = [*again.start, *(token.id for token in again.produced)]
        row = decoder.step([again.pending], [again.state])[0].numpy()
        held = Seen(options.unrepeated, seen)
        rules = Rules.at(options, vocabulary, held, len(again.produced))
        token = select(rules.filtered(row), options, len(again.produced))
        again.take(token, 0.0, description.eos_id)
    assert [token.id for token in target.produced] == [token.id for token in again.produced]
