"""The GPU's decoder: pages in one pool, steps of fixed shapes; on the CPU the same, unrecorded."""

from __future__ import annotations

import gc
import random

import pytest
import torch

from splitformer.errors import ResourceExhaustedError
from splitformer.model import DecoderState, Transformer
from splitformer.model.decoder import Decoder
from splitformer.model.paged_decoder import PagedDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.native import PAGE_POSITIONS as PAGE
from tests.parity.test_native import VOCABULARY
from tests.support.checkpoints import random_model
from tests.support.questions import asked_of
from tests.unit.test_model import RELATIVE

MEBIBYTE = 2**20
MODELS = {
    "post": lambda: random_model(VOCABULARY, max_positions=100),
    "pre": lambda: random_model(VOCABULARY, norm="pre", output_bias=True, max_positions=100),
    "relative": lambda: random_model(VOCABULARY, **RELATIVE, max_positions=100),
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
    ),
]


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return MODELS[request.param]()


def paged(model: Transformer, device: str = "cpu", pool_bytes: int = 8 * MEBIBYTE) -> PagedDecoder:
    return PagedDecoder(model.decoder.to(device), pool_bytes)


@pytest.mark.parametrize("device", DEVICES)
def test_mixes_are_computed_like_the_reference(model: Transformer, device: str) -> None:
    """Sessions join, leave, fork and rewind, with prefixes and without, and all agree."""
    reference = TorchDecoder(model_twin(model))
    decoder, chance = paged(model, device), random.Random(0)
    sessions: list[tuple[DecoderState, DecoderState]] = []
    torch.manual_seed(1)
    for turn in range(40):
        if len(sessions) < 9:
            memory = torch.randn(chance.choice((1, 5, PAGE, PAGE + 1, 70)), 32)
            sessions.append((reference.begin(memory), decoder.begin(memory)))
        if turn % 5 == 4:
            one, other = chance.choice(sessions)
            sessions.append((one.fork(), other.fork()))
        if turn % 7 == 6:
            one, other = chance.choice(sessions)
            one.truncate(one.length // 2)
            other.truncate(other.length // 2)
        sessions = [pair for pair in sessions if pair[0].length < 90]
        chance.shuffle(sessions)
        counts = [chance.choice((1, 1, 1, 1, 6)) for _ in sessions]
        tokens = [[chance.randrange(VOCABULARY) for _ in range(count)] for count in counts]
        outputs = [chance.randint(1, count) for count in counts]
        asked = asked_of(
            denied={0: (7, 9)},
            candidates={0: 5},
            logits=set(range(sum(outputs))),
            attention={0} if turn % 3 == 0 else set(),
        )
        expected = reference.advance(tokens, [p[0] for p in sessions], (3,), asked, outputs)
        got = decoder.advance(tokens, [p[1] for p in sessions], (3,), asked, outputs)
        assert got.ids == expected.ids
        assert got.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
        assert got.candidates[0].ids == expected.candidates[0].ids
        for i, logits in expected.logits.items():
            torch.testing.assert_close(got.logits[i], logits, atol=1e-4, rtol=1e-4)
        for i, weights in expected.attention.items():
            torch.testing.assert_close(got.attention[i], weights, atol=1e-5, rtol=1e-4)
    for one, other in sessions:
        torch.testing.assert_close(other.own.keys.cpu(), one.own.keys, atol=1e-4, rtol=1e-4)


def model_twin(model: Transformer) -> Decoder:
    """The same decoder, which stays on the CPU."""
    twin = Transformer(model.config).eval()
    twin.load_state_dict(model.state_dict())
    return twin.decoder


def test_pages_come_back_when_sessions_go() -> None:
    decoder = paged(random_model(VOCABULARY, max_positions=100))
    free = decoder.pool.free
    states = [decoder.begin(torch.randn(PAGE + 1, 32)) for _ in range(3)]
    assert decoder.pool.free == free - 3 * 2
    decoder.advance([[5] * (PAGE + 1)] * 3, states)
    fork = states[0].fork()
    assert decoder.pool.free == free - 3 * 4 - 1, "the full page is shared, the other copied"
    states.clear()
    gc.collect()
    assert decoder.pool.free == free - 2 - 2
    decoder.advance([[7]], [fork])
    del fork
    gc.collect()
    assert decoder.pool.free == free


def test_a_full_pool_is_said_and_harms_nobody() -> None:
    model = random_model(VOCABULARY, max_positions=100)
    page = 2 * 2 * 32 * PAGE * 4
    decoder = paged(model, pool_bytes=3 * page + page // 2)
    one = decoder.begin(torch.randn(4, 32))
    decoder.advance([[5]], [one])
    other = decoder.begin(torch.randn(4, 32))
    with pytest.raises(ResourceExhaustedError, match="all 3 pages are in use"):
        decoder.advance([[5]], [other])
    assert other.length == 0
    assert decoder.advance([[6]], [one]).ids


def test_what_a_session_has_left_is_not_seen_by_the_next() -> None:
    model = random_model(VOCABULARY, max_positions=100, tie_output=False, share_embeddings=False)
    with torch.no_grad():
        model.decoder.embedding.tokens.weight[9] = float("nan")
    decoder = paged(model)
    memory = torch.randn(3, 32)
    expected = decoder.advance([[5]], [decoder.begin(memory)])
    for _ in range(3):
        decoder.advance([[9] * PAGE], [decoder.begin(memory)])
        gc.collect()
        assert decoder.advance([[5]], [decoder.begin(memory)]) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_a_gpu(dtype: torch.dtype) -> None:
    model = random_model(VOCABULARY, max_positions=100)
    reference = TorchDecoder(model_twin(model))
    decoder = PagedDecoder(model.decoder.to("cuda", dtype), 8 * MEBIBYTE)
    memory = torch.randn(5, 32)
    one, other = reference.begin(memory), decoder.begin(memory)
    for token in range(40):
        asked = asked_of(logits={0})
        expected = reference.advance([[token]], [one], asked=asked)
        got = decoder.advance([[token]], [other], asked=asked)
        torch.testing.assert_close(got.logits[0], expected.logits[0], atol=0.1, rtol=0.1)
