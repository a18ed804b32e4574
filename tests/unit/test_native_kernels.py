"""The native library's kernels against torch and against exact integers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from splitformer.native import Activation, Cache, FloatArray, InstructionSet, Precision
from splitformer.native.operations import NormKind
from tests.support.native import (
    activate,
    attend,
    instruction_sets,
    likeliest,
    linear,
    needs_native,
    norm,
)

pytestmark = needs_native
SHAPES = [(1, 1), (4, 16), (36, 33), (64, 64), (67, 130), (512, 100)]  # K, N


def numbers(*shape: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


@pytest.mark.parametrize("isa", instruction_sets(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("inputs", "width"), SHAPES)
def test_int8_sums_are_exact(isa: InstructionSet, inputs: int, width: int) -> None:
    weight, bias = numbers(width, inputs), numbers(width, seed=1)
    scale = np.abs(weight).max(axis=1) / np.float32(127)
    quantised_weight = np.rint(weight * (np.float32(127) / np.abs(weight).max(axis=1))[:, None])
    for rows in range(1, 18):
        x = numbers(rows, inputs, seed=rows) * np.float32(rows)
        quantised, scales, sums, out = linear(x, weight, bias, "int8", isa)
        exact = quantised.astype(np.int64) @ quantised_weight.astype(np.int64).T
        np.testing.assert_array_equal(sums, exact)
        expected = exact * scale * scales[:, None] + bias
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("isa", instruction_sets(), ids=lambda isa: isa.name)
def test_int8_sums_do_not_saturate(isa: InstructionSet) -> None:
    x, weight = np.ones((5, 512), np.float32), np.ones((32, 512), np.float32)
    for signs in (1, -1):
        _, _, sums, out = linear(x * np.float32(signs), weight, None, "int8", isa)
        assert (sums == signs * 512 * 127 * 127).all()
        np.testing.assert_allclose(out, signs * 512, rtol=1e-6)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize(("inputs", "width"), SHAPES)
def test_bits_do_not_depend_on_instruction_set_or_neighbours(
    precision: Precision, inputs: int, width: int
) -> None:
    x, weight, bias = numbers(17, inputs), numbers(width, inputs), numbers(width)
    x *= np.geomspace(1e-3, 1e3, 17, dtype=np.float32)[:, None]
    results = [linear(x, weight, bias, precision, isa)[3] for isa in instruction_sets()]
    for isa in instruction_sets():
        for rows in (1, 2, 3, 5, 7, 12):
            results.append(linear(x[:rows], weight, bias, precision, isa)[3])
    for result in results:
        np.testing.assert_array_equal(
            result.view(np.int32), results[0][: len(result)].view(np.int32)
        )


@pytest.mark.parametrize("isa", instruction_sets(), ids=lambda isa: isa.name)
@pytest.mark.parametrize(("inputs", "width"), SHAPES)
def test_float_products(isa: InstructionSet, inputs: int, width: int) -> None:
    weight, bias = numbers(width, inputs), numbers(width, seed=1)
    for rows in range(1, 18):
        x = numbers(rows, inputs, seed=rows)
        expected = x.astype(np.float64) @ weight.T.astype(np.float64) + bias
        *_, out = linear(x, weight, bias, "fp32", isa)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [1, 8, 31, 32, 36, 512, 2047])
def test_quantised_rows(size: int) -> None:
    x = numbers(3, size) * np.array([[1e-4], [1], [1e6]], np.float32)
    first, *others = (
        linear(x, np.ones((1, size), np.float32), None, "int8", isa) for isa in instruction_sets()
    )
    quantised, scales, *_ = first
    np.testing.assert_array_equal(scales, np.abs(x).max(axis=1) / np.float32(127))
    assert (np.abs(quantised).max(axis=1) == 127).all()
    assert (np.abs(quantised * scales[:, None] - x) <= scales[:, None] * 0.501).all()
    for other in others:
        np.testing.assert_array_equal(other[0], quantised)


def test_a_row_of_zeros_stays_zero() -> None:
    for isa in instruction_sets():
        *_, out = linear(np.zeros((2, 40), np.float32), numbers(20, 40), None, "int8", isa)
        assert (out == 0).all()


@pytest.mark.parametrize("isa", instruction_sets(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("size", [1, 7, 8, 16, 29, 36, 100, 512])
def test_norms(kind: NormKind, size: int, isa: InstructionSet) -> None:
    x, gain, shift = numbers(size) * 3 + 1, numbers(size, seed=1), numbers(size, seed=2)
    centred = x - x.mean() if kind == "layer" else x
    expected = centred / np.sqrt((centred**2).mean() + 1e-5) * gain + shift
    ours = norm(kind, x, gain, shift, 1e-5, isa)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    if kind == "layer":
        reference = functional.layer_norm(
            torch.tensor(x), (size,), torch.tensor(gain), torch.tensor(shift)
        )
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_bits_of_norms_do_not_depend_on_instruction_set(kind: NormKind) -> None:
    for size in range(1, 100):
        x, gain, shift = numbers(size) * 3 + 1, numbers(size, seed=1), numbers(size, seed=2)
        first, *others = (norm(kind, x, gain, shift, 1e-5, isa) for isa in instruction_sets())
        for other in others:
            assert other.tobytes() == first.tobytes()


@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "gelu_tanh", "silu"])
def test_activations(activation: Activation) -> None:
    x = np.linspace(-30, 30, 8 * 2001, dtype=np.float32)
    x[100:103] = 0.0, -0.0, 1e-30
    given = torch.tensor(x).double()
    expected = {
        "none": given,
        "relu": given.relu(),
        "gelu": functional.gelu(given),
        "gelu_tanh": functional.gelu(given, approximate="tanh"),
        "silu": functional.silu(given),
    }[activation]
    first, *others = (activate(activation, x, isa) for isa in instruction_sets())
    np.testing.assert_allclose(first, expected, rtol=1e-6, atol=1e-6)
    for other in others:
        assert other.tobytes() == first.tobytes()


@pytest.mark.parametrize("isa", instruction_sets(), ids=lambda isa: isa.name)
def test_the_first_of_the_likeliest_is_found(isa: InstructionSet) -> None:
    for seed in range(50):
        logits = np.round(numbers(256, seed=seed) * 4)  # many are equal
        mask = np.where(numbers(256, seed=seed + 50) > 1, -np.inf, 0).astype(np.float32)
        assert likeliest(logits, None, isa)[0] == logits.argmax()
        assert likeliest(logits, mask, isa)[0] == (logits + mask).argmax()
    assert likeliest(logits, np.full(256, -np.inf, np.float32), isa)[0] == -1


def test_sums_of_exponentials() -> None:
    for size in (16, 64, 256):
        logits = numbers(size, seed=size) * np.float32(20)
        first, *others = (likeliest(logits, None, isa)[1:] for isa in instruction_sets())
        assert first[0] == logits.max()
        expected = np.exp(logits.astype(np.float64) - logits.max()).sum()
        np.testing.assert_allclose(first[1], expected, rtol=1e-6)
        for other in others:
            assert other == first


@pytest.mark.parametrize("cache", ["f32", "f16"])
@pytest.mark.parametrize("width", [4, 8, 12, 32, 64, 80])
def test_attention(width: int, cache: Cache) -> None:
    for positions in (1, 2, 3, 4, 5, 8, 17, 32, 33, 64, 100):
        query, keys, values = numbers(width), numbers(positions, width), numbers(positions, width)
        if cache == "f16":  # what 16 bits hold exactly
            keys, values = (x.astype(np.float16).astype(np.float32) for x in (keys, values))
        scores = keys.astype(np.float64) @ query * 0.3
        weights = np.exp(scores - scores.max())
        expected = weights / weights.sum() @ values
        np.testing.assert_allclose(
            attend(query, keys, values, 0.3, None, cache), expected, rtol=1e-4, atol=1e-5
        )


def test_16_bits_hold_the_nearest_number_and_never_infinity() -> None:
    key, query = np.zeros((1, 8), np.float32), np.zeros(8, np.float32)
    value = np.array([[1e6, -1e9, 1 + 2**-11, 1 + 3 * 2**-11, 1e-8, 0.1, 65504, -3]], np.float32)
    expected = np.clip(value, -65504, 65504).astype(np.float16).astype(np.float32)[0]
    np.testing.assert_array_equal(attend(query, key, value, 1.0, None, "f16"), expected)


def test_attention_with_large_scores() -> None:
    keys = np.array([[1000.0] * 8, [-1000.0] * 8, [999.0] * 8], np.float32)
    values = np.array([[1.0] * 8, [2.0] * 8, [3.0] * 8], np.float32)
    out = attend(np.ones(8, np.float32), keys, values, 1.0, None)
    np.testing.assert_allclose(out, 1 + 2 * np.exp(-8) / (1 + np.exp(-8)), rtol=1e-5)


def test_attention_with_a_bias_by_distance() -> None:
    query, keys, values = numbers(8), numbers(6, 8, seed=1), numbers(6, 8, seed=2)
    bias = np.array([0.5, -1.0, 2.0], np.float32)
    scores = keys @ query + bias[np.minimum(np.arange(5, -1, -1), 2)]
    weights = np.exp(scores - scores.max())
    expected = weights / weights.sum() @ values
    np.testing.assert_allclose(attend(query, keys, values, 1.0, bias), expected, rtol=1e-5)
