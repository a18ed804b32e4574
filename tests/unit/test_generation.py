"""Filters are Transformers', draws depend on (seed, position) only, the loop keeps step."""

from __future__ import annotations

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from splitformer.errors import InvalidArgumentError
from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary, step
from splitformer.generation.filters import (
    Row,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    likely,
    penalise,
    suppress,
)
from splitformer.generation.seen import Seen
from splitformer.generation.selectors import select
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.decoder import Decoder
from splitformer.model.drawing import uniform
from splitformer.model.torch_decoder import TorchDecoder

VOCABULARY = 50
NO_IDS = torch.zeros(1, 1, dtype=torch.long)


def given(seed: int = 0) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)).double() * 3


def logits(seed: int = 0) -> Row:
    row: Row = given(seed).numpy()
    return row


def equal(ours: Row, theirs: torch.Tensor) -> bool:
    return np.array_equal(ours, theirs.numpy())


@pytest.mark.parametrize("k", [1, 2, 7, 49, 50, 500])
def test_top_k_is_transformers(k: int) -> None:
    theirs = TopKLogitsWarper(k)(NO_IDS, given()[None])[0]
    assert equal(keep_top_k(logits(), k), theirs)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_top_p_is_transformers(p: float, seed: int) -> None:
    theirs = TopPLogitsWarper(p)(NO_IDS, given(seed)[None])[0]
    assert equal(keep_top_p(logits(seed), p), theirs)


def test_temperature_top_k_and_top_p_in_transformers_order() -> None:
    theirs = given()[None]
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(20), TopPLogitsWarper(0.8)):
        theirs = warper(NO_IDS, theirs)
    expected = theirs[0].softmax(-1)
    np.testing.assert_allclose(likely(logits(), 0.7, 20, 0.8), expected, rtol=1e-7)


@pytest.mark.parametrize("p", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(5))
def test_min_p_is_transformers(p: float, seed: int) -> None:
    theirs = MinPLogitsWarper(p)(NO_IDS, given(seed)[None])[0]
    assert equal(keep_min_p(logits(seed), p), theirs)


@pytest.mark.parametrize("penalty", [0.5, 1.0, 1.3, 4.0])
@pytest.mark.parametrize("seen", [[3], [0, 7, 7, 49, 7], list(range(50))])
def test_repetition_penalty_is_transformers(penalty: float, seen: list[int]) -> None:
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([seen]), given()[None])[0]
    assert equal(penalise(logits(), seen, penalty), theirs)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(8))
def test_no_repeated_ngram_is_transformers(size: int, seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    seen = torch.randint(0, 3, (seed * 2 + 1,), generator=chance)
    theirs = NoRepeatNGramLogitsProcessor(size)(seen[None], given()[None])[0]
    banned = Seen(size, seen.tolist()).completing
    assert equal(suppress(logits(), list(banned)), theirs)


def test_copies_of_what_was_seen_go_their_own_way() -> None:
    seen = Seen(2, (3, 4, 3))
    twin = seen.fork()
    twin.add(5)
    twin.add(3)
    assert (sorted(seen.completing), sorted(seen.ids)) == ([4], [3, 4])
    assert (sorted(twin.completing), sorted(twin.ids)) == ([4, 5], [3, 4, 5])


def test_all_filters_in_transformers_order() -> None:
    seen, suppressed = [4, 9, 4], [11, 12]
    theirs = given()[None]
    for processor in (
        RepetitionPenaltyLogitsProcessor(1.4),
        NoRepeatNGramLogitsProcessor(2),
        SuppressTokensLogitsProcessor(suppressed),
        TemperatureLogitsWarper(0.7),
        TopKLogitsWarper(20),
        TopPLogitsWarper(0.9),
        MinPLogitsWarper(0.05),
    ):
        theirs = processor(torch.tensor([seen]), theirs)
    ruled_out = [*Seen(2, seen).completing, *suppressed]
    ours = likely(suppress(penalise(logits(), seen, 1.4), ruled_out), 0.7, 20, 0.9, 0.05)
    np.testing.assert_allclose(ours, theirs[0].softmax(-1), rtol=1e-7)


def test_all_broken_options_are_named_at_once() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        GenerationOptions(top_p=0.0, stop=("a", ""), min_new_tokens=3, max_new_tokens=2)
    named = [violation.field for violation in caught.value.violations]
    assert named == ["options.top_p", "options.stop", "options.min_new_tokens"]
    with pytest.raises(InvalidArgumentError) as caught:
        GenerationOptions(suppressed_tokens=(-1, 3, 50)).check(VOCABULARY)
    named = [violation.field for violation in caught.value.violations]
    assert named == ["options.suppressed_tokens[0]", "options.suppressed_tokens[2]"]


def test_suppressed_tokens_have_no_chance() -> None:
    ruled_out = suppress(logits(), [3, 4])
    assert ruled_out[[3, 4]].tolist() == [-torch.inf, -torch.inf]
    assert np.array_equal(ruled_out[5:], logits()[5:])


def test_a_draw_depends_on_seed_and_position_only() -> None:
    first = [uniform(42, position) for position in range(20)]
    assert [uniform(42, position) for position in reversed(range(20))] == first[::-1]
    assert len({*first, *(uniform(43, position) for position in range(20))}) == 40
    assert all(0 <= draw < 1 for draw in first)


def test_draws_follow_the_probabilities() -> None:
    """With 4,000 draws a frequency is off by more than 5 standard errors once in 1.7 million."""
    options = GenerationOptions(temperature=1.5, top_k=6, seed=5)
    draws, expected = 4000, likely(logits(), 1.5, 6, None)
    counts = collections.Counter(select(logits(), options, i) for i in range(draws))
    for token, probability in enumerate(expected.tolist()):
        error = (probability * (1 - probability) / draws) ** 0.5
        assert abs(counts[token] / draws - probability) <= 5 * error
    assert len(counts) == 6


def test_temperature_zero_and_nothing_set_are_greedy() -> None:
    for options in (GenerationOptions(), GenerationOptions(temperature=0.0, top_k=5)):
        assert not options.sampled
        assert select(logits(), options, 3) == int(logits().argmax())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"min_new_tokens": -1}, "min_new_tokens"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_out_of_range_name_the_field(options: dict[str, float], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        GenerationOptions(**options)  # type: ignore[arg-type]
    assert caught.value.violations[0].field == f"options.{field}"
    assert caught.value.reason == "BAD_OPTION"


class Scripted(Decoder):
    """A decoder whose logits follow a script instead of weights; it records what it is fed."""

    def __init__(self, checkpoint: Checkpoint, script: list[int]) -> None:
        super().__init__(checkpoint.description.architecture)
        self.script = script
        self.fed: list[list[int]] = []

    def step(self, tokens, states, outputs=None, attention=None):  # type: ignore[no-untyped-def]
        self.fed.extend(list(new) for new in tokens)
        result = super().step(tokens, states, outputs, attention)
        row = torch.full_like(result, -5.0)
        row[:, self.script[len(self.fed) - 1]] = 5.0
        return row


@pytest.fixture(scope="module")
def checkpoint(tiny_model: Path) -> Checkpoint:
    return Checkpoint(tiny_model)


def target_of(checkpoint: Checkpoint, decoder: Decoder, start: tuple[int, ...]) -> Target:
    state = decoder.begin(torch.randn(4, checkpoint.description.architecture.d_model))
    return Target(start, state, checkpoint.tokenizer.detokenizer(), 48)


def run(
    checkpoint: Checkpoint, decoder: Decoder, target: Target, options: GenerationOptions
) -> None:
    description = checkpoint.description
    vocabulary = Vocabulary(description.eos_id, description.never_generated)
    decoding = Sequential(target, options, target.max_positions, vocabulary)
    assert not step(TorchDecoder(decoder), [decoding], vocabulary.never)


def test_each_step_is_fed_what_the_last_one_produced(checkpoint: Checkpoint) -> None:
    decoder = Scripted(checkpoint, [300, 301, 1]).eval()
    target = target_of(checkpoint, decoder, (3, 20, 21))
    for _ in range(3):
        run(checkpoint, decoder, target, GenerationOptions())
    assert decoder.fed == [[3, 20, 21], [300], [301]]
    assert [token.id for token in target.produced] == [300, 301]
    assert target.end is not None
    assert target.end.id == 1


def test_the_end_token_waits_for_min_new_tokens(checkpoint: Checkpoint) -> None:
    decoder = Scripted(checkpoint, [1, 1, 1]).eval()
    target = target_of(checkpoint, decoder, (3,))
    for expected in (1, 2, 2):
        run(checkpoint, decoder, target, GenerationOptions(min_new_tokens=2))
        assert len(target.produced) == expected
    assert target.end is not None


def test_language_and_padding_tokens_are_never_produced(checkpoint: Checkpoint) -> None:
    for forbidden in checkpoint.description.never_generated:
        decoder = Scripted(checkpoint, [forbidden]).eval()
        target = target_of(checkpoint, decoder, (3,))
        run(checkpoint, decoder, target, GenerationOptions(min_new_tokens=1))
        assert target.produced[0].id not in checkpoint.description.never_generated
        assert target.produced[0].log_probability < -5, "it is the model's, before filters"


def test_a_target_is_full_when_its_last_token_has_no_position(checkpoint: Checkpoint) -> None:
    decoder = Scripted(checkpoint, [300] * 60).eval()
    target = target_of(checkpoint, decoder, (3,))
    for _ in range(48):
        run(checkpoint, decoder, target, GenerationOptions())
    assert len(target.produced) == 48
    assert target.state.length == 48
