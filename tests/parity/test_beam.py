"""Beam search finds what Hugging Face's does: the same hypotheses, in the same order, as good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from splitformer.generation import (
    Decoding,
    EndReason,
    GenerationOptions,
    Glossary,
    Hypotheses,
    Target,
    Vocabulary,
    decoding_for,
    step,
)
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.stepping import StepDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.native import available
from tests.parity.test_marian import PAD, make_pair
from tests.support.pairs import POSITIONS, Pair, padded

EOS = 0
BAD = [[i, j] for i in range(20, 90, 5) for j in range(20, 90)] + [[25], [31, 30, 40], [40, EOS]]
CASES: list[dict[str, Any]] = [
    {},
    {"length_penalty": 0.0},
    {"length_penalty": 2.0},
    {"length_penalty": -1.0},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1, "repetition_penalty": 1.2},
    {"min_new_tokens": 8},
    {"suppress_tokens": list(range(20, 60))},
    {"early_stopping": True},
    {"early_stopping": True, "length_penalty": 0.0},
    {"early_stopping": True, "length_penalty": 2.0, "repetition_penalty": 1.4},
    {"bad_words_ids": BAD},
    {"bad_words_ids": BAD, "no_repeat_ngram_size": 2, "early_stopping": True},
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.set_num_threads(1)
    torch.manual_seed(0)  # any model does, but for hypotheses that are equal to the last bit
    pair = make_pair(tmp_path_factory.mktemp("beam") / "opus-mt-beam")
    pair.theirs.generation_config.forced_eos_token_id = None  # at a limit of the caller's
    return pair


def vocabulary(pair: Pair, end_at_limit: bool = False) -> Vocabulary:
    description = pair.checkpoint.description
    assert description.eos_id == EOS
    size = description.architecture.target_vocabulary_size
    return Vocabulary(EOS, description.never_generated, size, end_at_limit)


def new_target(
    pair: Pair, decoder: StepDecoder, source: list[int], prefix: tuple[int, ...] = ()
) -> Target:
    memory = pair.ours.encode(torch.tensor([source]), torch.tensor([len(source)]))[0]
    detokenizer = pair.checkpoint.tokenizer.detokenizer()
    return Target((PAD, *prefix), decoder.begin(memory), detokenizer, POSITIONS)


def run_together(decoder: StepDecoder, many: list[Decoding]) -> list[Hypotheses]:
    """Take steps with all that are not finished; return what each has found."""
    while batch := [each for each in many if not each.finished]:
        assert not step(decoder, batch, (PAD,))
    return [next(e for e in each.news() if isinstance(e, Hypotheses)) for each in many]


def options_of(beams: int, returned: int, case: dict[str, Any]) -> GenerationOptions:
    case, words = filters_of(case)
    return GenerationOptions(num_beams=beams, num_return_sequences=returned, **case, **words)


def filters_of(case: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split options of theirs into those of the same name, and ours for ids that never come."""
    case = dict(case)
    suppressed, bad = case.pop("suppress_tokens", ()), case.pop("bad_words_ids", ())
    glossary = Glossary(cast(Any, SimpleNamespace()), Vocabulary(EOS))
    words = GenerationOptions(suppressed_tokens=tuple(suppressed), bad_words=tuple(map(tuple, bad)))
    spelled = glossary.spelled(words)
    names = ("suppressed_tokens", "suppressed_sequences")
    return case, {name: getattr(spelled, name) for name in names}


def theirs(
    pair: Pair,
    source: list[int],
    prefix: tuple[int, ...],
    most: int,
    beams: int,
    case: dict[str, Any],
) -> list[tuple[list[int], float]]:
    """Return ids, without what comes from the decoder's start and padding, and scores."""
    found = pair.theirs.generate(
        input_ids=torch.tensor([source]),
        attention_mask=torch.ones(1, len(source), dtype=torch.long),
        decoder_input_ids=torch.tensor([[PAD, *prefix]]),
        num_beams=beams,
        num_return_sequences=beams,
        max_new_tokens=most,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        **case,
    )
    lengths = (found.beam_indices >= 0).sum(1).tolist()
    begin = 1 + len(prefix)
    rows = [
        row[begin : begin + n] for row, n in zip(found.sequences.tolist(), lengths, strict=True)
    ]
    return list(zip(rows, found.sequences_scores.tolist(), strict=True))


def assert_equal(found: Hypotheses, best: list[tuple[list[int], float]]) -> None:
    ids = [[t.id for t in h.tokens] + [EOS] * (h.reason is EndReason.EOS) for h in found]
    assert ids == [row for row, _ in best]
    for hypothesis, (_, score) in zip(found, best, strict=True):
        assert hypothesis.score == pytest.approx(score, abs=2e-4, rel=1e-4)


@pytest.fixture(params=["torch", "native"])
def decoder(request: pytest.FixtureRequest, pair: Pair) -> StepDecoder:
    if request.param == "torch":
        return TorchDecoder(pair.ours.decoder)
    if not available():
        pytest.skip("no native library")
    return NativeDecoder(pair.ours.decoder, "fp32", 1)


def sources(pair: Pair) -> list[list[int]]:
    rows, lengths, _ = padded(pair.checkpoint.description.architecture.source_vocabulary_size)
    return [row[:n].tolist() for row, n in zip(rows, lengths.tolist(), strict=True)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case) or "plain")
@torch.inference_mode()
def test_hypotheses_and_scores(pair: Pair, decoder: StepDecoder, case: dict[str, Any]) -> None:
    many, expected, most = [], [], 16
    for source, prefix, beams in zip(
        sources(pair), ((), (30,), (40, 30, 31)), (5, 2, 4), strict=True
    ):
        target = new_target(pair, decoder, source, prefix)
        options = options_of(beams, beams, case)
        many.append(decoding_for(target, options, most, vocabulary(pair)))
        expected.append(theirs(pair, source, prefix, most, beams, case))
    for found, best in zip(run_together(decoder, many), expected, strict=True):
        assert_equal(found, best)


@pytest.mark.parametrize(("beams", "most"), [(4, 1), (3, POSITIONS), (100, 3)])
@torch.inference_mode()
def test_extremes(pair: Pair, beams: int, most: int) -> None:
    """One step, as many as there are positions, and more beams than many a token has candidates."""
    source, decoder = sources(pair)[0], TorchDecoder(pair.ours.decoder)
    target = new_target(pair, decoder, source)
    beam = decoding_for(target, options_of(beams, beams, {}), most, vocabulary(pair))
    [found] = run_together(decoder, [beam])
    assert_equal(found, theirs(pair, source, (), most, beams, {}))


@torch.inference_mode()
def test_the_end_comes_where_there_is_no_more_room(pair: Pair, decoder: StepDecoder) -> None:
    source, case = sources(pair)[0], {"min_new_tokens": POSITIONS - 2}
    target = new_target(pair, decoder, source)
    beam = decoding_for(target, options_of(3, 3, case), 1000, vocabulary(pair, True))
    [found] = run_together(decoder, [beam])
    forced = case | {"forced_eos_token_id": EOS}
    assert_equal(found, theirs(pair, source, (), POSITIONS, 3, forced))
    assert {hypothesis.reason for hypothesis in found} == {EndReason.EOS}
