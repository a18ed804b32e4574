"""Drawing from a few candidates is drawing from all tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary, run
from splitformer.generation.drawing import Draw, Drawn, Sampler, drawn
from splitformer.generation.filters import Row, likeliest
from splitformer.generation.rules import Ranking, Rules
from splitformer.generation.selectors import needs_row, select, uniform, weight_of_all
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.torch_decoder import TorchDecoder
from tests.unit.test_generation import VOCABULARY, checkpoint, logits, target_of

__all__ = ["checkpoint"]


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


def draw(row: Row, count: int, options: GenerationOptions, position: int) -> Draw:
    """A draw from the `count` likeliest of a row."""
    best = likeliest(row, count)
    total = weight_of_all(row, options) if needs_row(options) else np.nan
    ranking = Ranking(best.ids, best.logits, best.logits)
    return Draw(ranking, Sampler.of(options), uniform(options.seed or 0, position), total)


@pytest.mark.parametrize("case", SAMPLING, ids=str)
def test_a_shortlist_draws_what_the_whole_row_does(case: dict[str, Any]) -> None:
    options, answered = GenerationOptions(seed=3, **case), 0
    for seed in range(40):
        row = logits(seed).round(decimals=seed % 3 + 1)  # with some equals among them
        for count in (6, 13, 21, VOCABULARY):
            (taken,) = drawn([draw(row, count, options, seed)])
            answered += taken is not None
            assert taken is None or taken.id == select(row, options, seed)
            assert taken is None or taken.logit == float(row[taken.id])
    assert answered > 20


def test_draws_are_the_same_bits_in_any_company() -> None:
    draws = [
        draw(logits(seed).round(decimals=seed % 3 + 1), count, GenerationOptions(seed=9, **case), i)
        for i, case in enumerate(SAMPLING)
        for seed in range(6)
        for count in (3, 13, 21, 29)
    ]
    alone = [drawn([each])[0] for each in draws]
    assert drawn(draws) == alone
    assert drawn(draws[::-1]) == alone[::-1]
    assert None in alone


def test_no_answer_where_others_may_be_as_likely() -> None:
    def taken(ids: list[int], values: list[float], total: float = 1.0, **case: Any) -> Drawn | None:
        options = GenerationOptions(seed=0, **case)
        ranking = Ranking(ids, values, values)
        return drawn([Draw(ranking, Sampler.of(options), 0.5, total)])[0]

    assert taken([7, 3, 9], [1.0, 0.5, 0.5], top_k=2) is None
    assert taken([7, 3], [1.0, 0.5], top_k=2) is None
    assert taken([7, 3], [1.0, 0.5], top_k=2, top_p=0.5, min_p=0.9) is None
    assert taken([7, 3, 9], [1.0, 0.5, 0.4], top_k=2) is not None
    assert taken([7, 3], [1.0, 0.9], min_p=0.1) is None
    assert taken([7, 3], [1.0, 0.9], top_p=0.9, total=30.0) is None


@pytest.mark.parametrize("case", [*SAMPLING, {}, {"temperature": 0.7}, {"top_k": 300}], ids=str)
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"repetition_penalty": 1.3, "suppressed_tokens": (300, 301)},
        {"repetition_penalty": 0.7, "no_repeat_ngram_size": 2},
    ],
    ids=["plain", "few", "row"],
)
def test_asking_for_little_chooses_what_looking_at_everything_does(
    checkpoint: Checkpoint, case: dict[str, Any], filters: dict[str, Any]
) -> None:
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
        rules = Rules.at(options, vocabulary, seen, len(again.produced))
        token = select(rules.filtered(row), options, len(again.produced))
        again.take(token, 0.0, description.eos_id)
    assert [token.id for token in target.produced] == [token.id for token in again.produced]
