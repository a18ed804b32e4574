"""The native encoder against torch, and its promise: no neighbour changes a memory's bits."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from splitformer.model import Transformer
from splitformer.model.encoding import Memory
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.torch_encoder import TorchEncoder
from splitformer.native import Precision
from tests.parity.test_native import VARIANTS, VOCABULARY
from tests.support.checkpoints import random_model
from tests.support.native import instruction_sets, needs_native

pytestmark = needs_native
LENGTHS = (1, 2, 15, 16, 17, 40, 64)
PRECISIONS: list[tuple[Precision, float]] = [("fp32", 2e-5), ("int8", 0.04)]


def sources(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[list[int]]:
    numbers = random.Random(seed)
    return [[numbers.randrange(VOCABULARY) for _ in range(length)] for length in lengths]


def same(a: Memory, b: Memory) -> bool:
    return np.array_equal(a.view(np.int32), b.view(np.int32))


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(VOCABULARY, **VARIANTS[request.param], max_positions=64)


@pytest.fixture
def small() -> Iterator[NativeEncoder]:
    encoder = NativeEncoder(random_model(VOCABULARY, max_positions=64).encoder, "int8", threads=2)
    yield encoder
    encoder.close()


@pytest.mark.parametrize(("precision", "tolerance"), PRECISIONS)
def test_encodes_like_torch(model: Transformer, precision: Precision, tolerance: float) -> None:
    encoder = NativeEncoder(model.encoder, precision, threads=2)
    expected = TorchEncoder(model.encoder).encode(sources())
    for ours, theirs in zip(encoder.encode(sources()), expected, strict=True):
        assert ours.shape == theirs.shape
        assert np.linalg.norm(ours - theirs) < tolerance * np.linalg.norm(theirs)
    encoder.close()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_bits_do_not_depend_on_company_threads_or_instructions(
    model: Transformer, precision: Precision
) -> None:
    reference = NativeEncoder(model.encoder, precision, threads=1)
    alone = [reference.encode([source])[0] for source in sources()]
    numbers = random.Random(1)
    for isa in instruction_sets():
        for threads in (1, 2, 3):
            encoder = NativeEncoder(model.encoder, precision, threads, isa=isa)
            order = numbers.sample(range(len(alone)), len(alone)) * 2
            together = encoder.encode([sources()[i] for i in order])
            assert all(same(memory, alone[i]) for memory, i in zip(together, order, strict=True))
            encoder.close()
    reference.close()


def test_a_memory_is_its_own_array(small: NativeEncoder) -> None:
    first = small.encode(sources())
    copies = [memory.copy() for memory in first]
    small.encode(sources(seed=1))
    assert all(same(a, b) for a, b in zip(first, copies, strict=True))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "source: 1 to max_positions"),
        ([0] * 65, "got 65"),
        ([1, VOCABULARY], f"tokens: must be below {VOCABULARY}, got {VOCABULARY}"),
        ([-1], "got -1"),
    ],
)
def test_refuses_what_it_cannot_encode(
    small: NativeEncoder, source: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small.encode([[1, 2], source])
    assert small.encode([[1, 2]])[0].shape == (2, small.config.d_model)


def test_an_encoder_takes_no_steps(small: NativeEncoder) -> None:
    with pytest.raises(ValueError, match="takes no steps"):
        small.plan.step(array("q", [1, 8, 0, 1, 1, 1, 1]), array("i", [1]), 1)


def test_the_torch_encoder_serves_where_it_must() -> None:
    encoder = TorchEncoder(random_model(VOCABULARY).encoder)
    assert not encoder.batch_invariant
    with torch.inference_mode():
        assert [len(memory) for memory in encoder.encode(sources((3, 5)))] == [3, 5]
    encoder.close()
