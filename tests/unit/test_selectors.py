"""Drawing from a few candidates is drawing from all tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary, run
from splitformer.generation.rules import Rules
from splitformer.generation.selectors import (
    needs_row,
    place_among,
    select,
    uniform,
    weights_of,
)
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.stepping import TorchDecoder, likeliest
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


@pytest.mark.parametrize("case", SAMPLING, ids=str)
def test_a_shortlist_draws_what_the_whole_row_does(case: dict[str, Any]) -> None:
    options, answered = GenerationOptions(seed=3, **case), 0
    for seed in range(40):
        row = logits(seed).round(decimals=seed % 3 + 1)  # with some equals among them
        for count in (6, 13, 21, VOCABULARY):
            best = likeliest(row, count)
            total = float(weights_of(row, options).sum()) if needs_row(options) else None
            place = place_among(best.ids, best.logits, options, seed, total)
            answered += place is not None
            assert place is None or best.ids[place] == select(row, options, seed)
    assert answered > 20


def test_no_answer_where_others_may_be_as_likely() -> None:
    options = GenerationOptions(seed=0, top_k=2)
    assert place_among([7, 3, 9], [1.0, 0.5, 0.5], options, 0) is None
    assert place_among([7, 3], [1.0, 0.5], options, 0) is None
    assert place_among([7, 3, 9], [1.0, 0.5, 0.4], options, 0) in (0, 1)
    assert place_among([7, 3], [1.0, 0.9], GenerationOptions(seed=0, min_p=0.1), 0) is None
    assert place_among([7, 3], [1.0, 0.9], GenerationOptions(seed=0, top_p=0.9), 0, 30.0) is None


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
        row = decoder.step([again.pending], [again.state])[0]
        rules = Rules.at(options, vocabulary, seen, len(again.produced))
        token = select(rules.filtered(row), options, len(again.produced))
        again.take(token, 0.0, description.eos_id)
    assert [token.id for token in target.produced] == [token.id for token in again.produced]
