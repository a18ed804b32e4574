"""The native decoder's promise: a sequence's bits do not depend on anything but the sequence.

Sessions join, leave, fork and rewind at random, at several threads and on every instruction set of
the machine; each must produce, bit for bit, the logits, log-probabilities, keys and values that it
has when it is computed alone, one position at a time, on one thread.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from splitformer.model import DecoderState, Transformer
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.rooms import Block
from splitformer.model.stepping import Advanced, Candidates
from splitformer.native import Draw, Precision, Question
from splitformer.native.binding import InstructionSet
from tests.parity.test_native import VOCABULARY
from tests.support.checkpoints import random_model
from tests.support.native import instruction_sets, needs_native
from tests.support.questions import asked_of
from tests.unit.test_model import RELATIVE

pytestmark = needs_native
MODELS: dict[str, Callable[[], Transformer]] = {
    "pre, head size 8": lambda: random_model(VOCABULARY),
    "post, head size 64": lambda: random_model(
        VOCABULARY, d_model=128, heads=2, norm="post", activation="gelu", output_bias=True
    ),
    "relative, heads wider than the model": lambda: random_model(VOCABULARY, **RELATIVE),
    "gated, odd sizes": lambda: random_model(
        VOCABULARY, d_model=36, heads=3, d_feed_forward=50, gated=True, activation="silu"
    ),
}
NUCLEUS = Draw(0.7, math.nan, 0.3, math.nan, 0.6, 0.0, 8)
FLAT = Draw(0.7, math.nan, math.nan, math.nan, math.nan, 0.0)
NEAR = Draw(1.0, math.nan, math.nan, 0.05)
SETUPS = [(threads, isa) for threads in (1, 2, 3) for isa in instruction_sets()]


@dataclass
class Session:
    """A sequence in the mix, and the tokens it holds."""

    memory: Tensor
    state: DecoderState
    tokens: list[int]


@dataclass
class Reference:
    """Computes sequences alone, one position at a time."""

    decoder: NativeDecoder

    def run(self, memory: Tensor, tokens: list[int], draw: Draw) -> tuple[Advanced, Block, Block]:
        """Return what is known after the last token; own and cross caches."""
        state = self.decoder.begin(memory)
        for token in tokens:
            asked = _asked([draw])
            result = self.decoder.advance([[token]], [state], (3, 4), asked, focus=True)
        return result, own_of(state), np.stack([state.cross.keys, state.cross.values])


def _asked(draws: list[Draw]) -> dict[int, Question]:
    """Everything that can be asked about as many outputs."""
    every = range(len(draws))
    return asked_of(
        denied=dict.fromkeys(every, (5, 290)),
        candidates=dict.fromkeys(every, 6),
        logits=set(every),
        given=dict.fromkeys(every, 11),
        attention=set(every),
        draws=dict(enumerate(draws)),
    )


def _listed(candidates: Candidates) -> tuple[list[int], list[float]]:
    return [*candidates.ids], [*candidates.logits]


def same(a: Block, b: Block) -> bool:
    """Whether two arrays have the same bits."""
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def own_of(state: DecoderState) -> Block:
    """Keys and values of a state's own positions."""
    return np.stack([state.own.keys, state.own.values])


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return MODELS[request.param]()


@pytest.fixture(scope="module", params=["int8", "fp32"])
def precision(request: pytest.FixtureRequest) -> Precision:
    value: Precision = request.param
    return value


@pytest.fixture(scope="module")
def reference(model: Transformer, precision: Precision) -> Iterator[Reference]:
    decoder = NativeDecoder(model.decoder, precision, 1, isa=InstructionSet.AVX2)
    yield Reference(decoder)
    decoder.close()


@pytest.mark.parametrize(("threads", "isa"), SETUPS)
@torch.inference_mode()
def test_mixes_do_not_change_a_bit(
    model: Transformer,
    precision: Precision,
    reference: Reference,
    threads: int,
    isa: InstructionSet,
) -> None:
    decoder = NativeDecoder(model.decoder, precision, threads, isa=isa)
    chance = random.Random(threads)
    torch.manual_seed(threads)
    sessions: list[Session] = []
    for _ in range(7):
        _change(sessions, decoder, chance, 40)
        if chance.random() < 0.3:
            chance.shuffle(sessions)
        news = [_new_tokens(session, chance) for session in sessions]
        draws = chance.choices((NUCLEUS, FLAT, NEAR), k=len(sessions))
        states = [session.state for session in sessions]
        result = decoder.advance(news, states, (3, 4), _asked(draws), focus=True)
        for session, new in zip(sessions, news, strict=True):
            session.tokens += new
        for row in chance.sample(range(len(sessions)), min(4, len(sessions))):
            session = sessions[row]
            alone, own, cross = reference.run(session.memory, session.tokens, draws[row])
            assert same(result.logits[row], alone.logits[0])
            assert result.log_probabilities[row] == alone.log_probabilities[0]
            assert result.ids[row] == alone.ids[0]
            assert _listed(result.candidates[row]) == _listed(alone.candidates[0])
            assert result.given[row] == alone.given[0]
            assert same(result.attention[row], alone.attention[0])
            focus, weight = result.focus[row], result.focus_weights[row]
            assert (focus, weight) == (alone.focus[0], alone.focus_weights[0])
            weights = alone.attention[0].tolist()
            assert (focus, weight) == (weights.index(max(weights)), max(weights))
            assert same(own_of(session.state), own)
            ours = session.state.cross
            assert same(np.stack([ours.keys, ours.values]), cross)
    decoder.close()


def _change(
    sessions: list[Session], decoder: NativeDecoder, chance: random.Random, most: int
) -> None:
    """Let sessions join, leave, fork and rewind."""
    width = decoder.config.d_model
    for _ in range(chance.randint(0 if sessions else 1, 8)):
        if len(sessions) < most:
            memory = torch.randn(chance.randint(1, 70), width) * 10 ** chance.uniform(-2, 2)
            sessions.append(Session(memory, decoder.begin(memory), []))
    for session in chance.sample(sessions, len(sessions) // 5):
        if len(sessions) < most:
            twin = Session(session.memory, session.state.fork(), list(session.tokens))
            sessions.append(twin)
    for session in sessions:
        if len(session.tokens) > 1 and (chance.random() < 0.2 or len(session.tokens) > 36):
            length = chance.randint(1, len(session.tokens) - 1)
            session.state.truncate(length)
            del session.tokens[length:]
    if len(sessions) > 4 and chance.random() < 0.5:
        del sessions[chance.randrange(len(sessions))]


def _new_tokens(session: Session, chance: random.Random) -> list[int]:
    count = 1 if chance.random() < 0.7 else chance.randint(1, 9)
    return [chance.randrange(VOCABULARY) for _ in range(count)]


@torch.inference_mode()
def test_scaling_by_the_whole_tensor_would_break_the_promise() -> None:
    """The control: this test of sameness does see what the usual quantisation does to a row."""
    weight, row = torch.randn(64, 48), torch.randn(1, 48)
    neighbour = torch.randn(1, 48) * 7

    def quantised_product(x: Tensor) -> Tensor:
        scale = x.abs().max() / 127
        return (x / scale).round() @ weight.T * scale

    alone = quantised_product(row)[0]
    together = quantised_product(torch.cat([row, neighbour]))[0]
    assert not same(alone.numpy(), together.numpy())
    assert (alone - together).abs().max() > 1e-3
