"""The Transformer against itself: the loop equals the parallel pass, and masks do not leak."""

from __future__ import annotations

import math

import pytest
import torch

from splitformer.errors import ConfigurationError
from splitformer.model import Transformer, TransformerConfig
from splitformer.model.attention import attention, causal_mask, join_heads, split_heads
from splitformer.model.cache import CrossCache, SelfCache
from splitformer.model.positions import sinusoidal_positions
from tests.support.checkpoints import random_model, tiny_config

VOCABULARY = 60
RELATIVE: dict[str, object] = {
    "positions": "relative",
    "relative_buckets": 8,
    "relative_distance": 20,
    "norm_kind": "rms",
    "activation": "gelu_tanh",
    "gated": True,
    "biases": False,
    "scale_embeddings": False,
    "scale_attention": False,
    "scale_output": True,
    "d_head": 12,
}
VARIANTS: dict[str, dict[str, object]] = {
    "paper": {"norm": "post"},
    "pre-norm": {"norm": "pre"},
    "learned positions": {"positions": "learned"},
    "gelu": {"activation": "gelu"},
    "silu, gated": {"activation": "silu", "gated": True},
    "normalised embeddings": {"normalize_embeddings": True, "scale_embeddings": False},
    "closed sinusoids": {"positions": "sinusoidal_closed", "position_offset": 2},
    "sizes of their own": {"decoder_heads": 2, "decoder_feed_forward": 40, "d_head": 12},
    "relative": RELATIVE,
    "separate embeddings": {"share_embeddings": False, "tie_output": False, "output_bias": True},
}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(VOCABULARY, **VARIANTS[request.param])


def sources() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, VOCABULARY, (3, 9)), torch.tensor([9, 4, 1])


@torch.inference_mode()
def test_step_by_step_equals_the_parallel_pass(model: Transformer) -> None:
    source, lengths = sources()
    target = torch.randint(0, VOCABULARY, (3, 11))
    whole = model(source, lengths, target)
    memory = model.encode(source, lengths)
    states = [model.begin(memory[i, :n]) for i, n in enumerate(lengths.tolist())]
    for t in range(target.shape[1]):
        logits = model.step(target[:, t : t + 1].tolist(), states)
        torch.testing.assert_close(logits, whole[:, t], atol=2e-5, rtol=1e-4)
    assert [state.length for state in states] == [11, 11, 11]


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [[11], [1, 10], [5, 6], [3, 1, 1, 6]])
def test_a_prefix_in_any_pieces_equals_single_steps(model: Transformer, cuts: list[int]) -> None:
    source, lengths = sources()
    target = torch.randint(0, VOCABULARY, (1, 11))
    memory = model.encode(source, lengths)
    state = model.begin(memory[1, :4])
    at = 0
    for count in cuts:
        logits = model.step([target[0, at : at + count].tolist()], [state])
        at += count
    whole = model(source[1:2], lengths[1:2], target)
    torch.testing.assert_close(logits, whole[:, -1], atol=2e-5, rtol=1e-4)


@torch.inference_mode()
def test_sequences_at_different_positions_share_a_step(model: Transformer) -> None:
    source, lengths = sources()
    memory = model.encode(source, lengths)
    early, late = model.begin(memory[0]), model.begin(memory[1, :4])
    alone = model.begin(memory[0])
    model.step([[5, 6, 7, 8]], [late])
    together = model.step([[9], [4, 3]], [early, late])
    torch.testing.assert_close(together[:1], model.step([[9]], [alone]), atol=2e-5, rtol=1e-4)
    assert (early.length, late.length) == (1, 6)


@torch.inference_mode()
def test_source_padding_cannot_leak(model: Transformer) -> None:
    source, lengths = sources()
    target = torch.randint(0, VOCABULARY, (3, 6))
    before = model(source, lengths, target)
    for row, length in enumerate(lengths.tolist()):
        source[row, length:] = torch.randint(0, VOCABULARY, (9 - length,))
    torch.testing.assert_close(model(source, lengths, target), before, atol=0, rtol=0)


@torch.inference_mode()
def test_the_future_cannot_leak(model: Transformer) -> None:
    source, lengths = sources()
    target = torch.randint(0, VOCABULARY, (3, 8))
    before = model(source, lengths, target)[:, :5]
    target[:, 5:] = (target[:, 5:] + 1) % VOCABULARY
    torch.testing.assert_close(model(source, lengths, target)[:, :5], before, atol=0, rtol=0)


@torch.inference_mode()
def test_forks_go_their_own_way_over_one_memory() -> None:
    model = random_model(VOCABULARY)
    state = model.begin(model.encode(torch.tensor([[4, 5, 6]]), torch.tensor([3]))[0])
    model.step([[7, 8]], [state])
    fork = state.fork()
    assert fork.cross is state.cross
    expected = model.step([[9]], [state.fork()])
    model.step([[10]], [state])
    torch.testing.assert_close(model.step([[9]], [fork]), expected, atol=0, rtol=0)


@torch.inference_mode()
def test_rewinding_recomputes_the_same_logits() -> None:
    model = random_model(VOCABULARY)
    state = model.begin(model.encode(torch.tensor([[4, 5, 6]]), torch.tensor([3]))[0])
    first = [model.step([[token]], [state]) for token in (7, 8, 9)]
    state.truncate(1)
    again = [model.step([[token]], [state]) for token in (8, 9)]
    torch.testing.assert_close(again, first[1:], atol=0, rtol=0)


def test_caches_know_their_size() -> None:
    model = random_model(VOCABULARY)
    config = model.config
    with torch.inference_mode():
        state = model.begin(torch.randn(7, config.d_model))
        assert state.cross.size_bytes == CrossCache.bytes_for(7, 2, config.d_model, 4)
        for count in (1, 30, 1, 1):
            model.step([[3] * count], [state])
            expected = SelfCache.bytes_for(state.length, 2, config.d_model, 4)
            assert state.own.size_bytes == expected


def test_attention_without_parameters_is_the_formula() -> None:
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    weights = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1)
    torch.testing.assert_close(attention(q, k, v), weights @ v)


def test_heads_are_pieces_of_the_vectors() -> None:
    x = torch.arange(24.0).reshape(2, 12)
    pieces = split_heads(x, 3)
    assert pieces.shape == (3, 2, 4)
    assert pieces[1, 0].tolist() == [4, 5, 6, 7]
    torch.testing.assert_close(join_heads(pieces), x)


def test_the_causal_mask_ends_at_the_diagonal() -> None:
    mask = causal_mask(2, 4, torch.device("cpu"))
    assert mask.tolist() == [[True, True, True, False], [True, True, True, True]]


def test_sinusoids_are_the_papers() -> None:
    table = sinusoidal_positions(50, 16)
    for position, i in [(0, 0), (3, 1), (49, 7)]:
        angle = position / 10000 ** (2 * i / 16)
        assert table[position, i] == pytest.approx(math.sin(angle), abs=1e-7)
        assert table[position, 8 + i] == pytest.approx(math.cos(angle), abs=1e-7)


def test_as_many_feed_forward_networks_as_the_memo_counts() -> None:
    model = random_model(VOCABULARY)
    networks = [m for m in model.modules() if type(m).__name__ == "FeedForward"]
    assert len(networks) == model.config.encoder_layers + model.config.decoder_layers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "d_model: must be a multiple of heads"),
        ({"norm": "both"}, "norm: must be one of"),
        ({"activation": 3}, "activation: must be one of"),
        ({"d_model": 0}, "d_model: must be a positive integer, got 0"),
        ({"heads": True}, "heads: must be a positive integer, got True"),
        ({"gated": 1}, "gated: must be true or false, got 1"),
        ({"norm_epsilon": 0.0}, "norm_epsilon: must lie between 0 and 1"),
        ({"decoder_heads": 5}, "d_model: must be a multiple of decoder_heads"),
        ({"relative_buckets": 6}, "relative_buckets: must be a multiple of 4"),
        ({"scale_output": True, "norm": "post"}, 'scale_output: needs norm "pre"'),
        ({"position_offset": -1}, "position_offset: must be a positive integer or 0"),
        ({"source_vocabulary_size": 61}, "share_embeddings: needs source and target"),
        ({"colour": "red"}, "unknown field 'colour'"),
    ],
)
def test_bad_configurations_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tiny_config(VOCABULARY, **changes)


def test_a_missing_field_is_named() -> None:
    values = tiny_config(VOCABULARY).to_dict()
    del values["heads"]
    with pytest.raises(ConfigurationError, match="missing field 'heads'"):
        TransformerConfig.from_dict(values)
