"""Filters in greedy decoding, in one batch: token for token what Transformers decodes with them."""

from __future__ import annotations

from typing import Any

import torch

from splitformer.generation import decoding_for, step
from splitformer.generation.options import GenerationOptions
from splitformer.model.stepping import StepDecoder
from tests.parity.test_beam import (
    BAD,
    EOS,
    decoder,
    filters_of,
    new_target,
    pair,
    sources,
    vocabulary,
)
from tests.parity.test_marian import PAD
from tests.support.pairs import Pair

__all__ = ["decoder", "pair"]

MOST = 30
BIAS = [[[i], 0.7 * (i % 7 - 3)] for i in range(5, 95)]
CASES: tuple[dict[str, Any], ...] = (
    {},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 3},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 25},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 30.0},
    {"repetition_penalty": 0.8},
    {"repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    {"suppress_tokens": list(range(20, 60))},
    {"suppress_tokens": list(range(20, 60)), "no_repeat_ngram_size": 1},
    {"bad_words_ids": BAD},
    {"sequence_bias": BIAS},
    {"sequence_bias": BIAS, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
    {"bad_words_ids": BAD, "no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
)


def options_of(case: dict[str, Any]) -> GenerationOptions:
    case, words = filters_of(case)
    bias = tuple((ids[0], value) for ids, value in case.pop("sequence_bias", ()))
    return GenerationOptions(logit_bias=bias, **case, **words)


@torch.inference_mode()
def test_greedy_rows_of_every_filter_at_once(pair: Pair, decoder: StepDecoder) -> None:
    chosen = [(source, case) for source in sources(pair) for case in CASES]
    targets = [new_target(pair, decoder, source) for source, _ in chosen]
    running = [
        decoding_for(target, options_of(case), MOST, vocabulary(pair))
        for target, (_, case) in zip(targets, chosen, strict=True)
    ]
    while batch := [each for each in running if not each.finished]:
        assert not step(decoder, batch, (PAD,))
    filtered, plain = 0, {tuple(source): theirs(pair, source, {}) for source in sources(pair)}
    for target, (source, case) in zip(targets, chosen, strict=True):
        expected = theirs(pair, source, case)
        assert [t.id for t in target.produced] + [EOS] * (target.end is not None) == expected, case
        filtered += expected != plain[tuple(source)]
    assert filtered > len(chosen) // 2, "filters must have something to do"


def theirs(pair: Pair, source: list[int], case: dict[str, Any]) -> list[int]:
    found = pair.theirs.generate(
        input_ids=torch.tensor([source]),
        attention_mask=torch.ones(1, len(source), dtype=torch.long),
        num_beams=1,
        max_new_tokens=MOST,
        do_sample=False,
        **case,
    )
    ids: list[int] = found[0, 1:].tolist()
    return ids
