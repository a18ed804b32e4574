"""The native decoder against the torch one: the same function, in float32 and in 8 bits."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from splitformer.model import Transformer
from splitformer.model.cache import CrossCache, SelfCache
from splitformer.model.drawing import uniform
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.native import Draw, InstructionSet, Precision, Question
from tests.support.checkpoints import random_model, tiny_config
from tests.support.native import instruction_sets, needs_native
from tests.support.questions import asked_of
from tests.unit.test_model import RELATIVE

pytestmark = needs_native
VOCABULARY = 301
DRAW = Draw(0.8, math.nan, 0.5, math.nan, 0.4, 0.0)
VARIANTS: dict[str, dict[str, object]] = {
    "pre-norm": {"norm": "pre"},
    "post-norm": {"norm": "post"},
    "learned positions": {"positions": "learned"},
    "gelu": {"activation": "gelu"},
    "silu, gated": {"activation": "silu", "gated": True},
    "gated, odd": {"gated": True, "d_feed_forward": 50},
    "normalised embeddings, pre": {"normalize_embeddings": True, "scale_embeddings": False},
    "normalised embeddings, post": {"normalize_embeddings": True, "norm": "post"},
    "separate output": {"share_embeddings": False, "tie_output": False, "output_bias": True},
    "odd sizes": {"d_model": 36, "heads": 3, "d_feed_forward": 50},
    "head size 64": {"d_model": 128, "heads": 2, "d_feed_forward": 96},
    "head size 32": {"d_model": 64, "heads": 2, "norm": "post"},
    "sizes of their own": {"decoder_heads": 2, "decoder_feed_forward": 40, "d_head": 12},
    "relative": RELATIVE,
    "relative, head size 64": RELATIVE | {"d_head": 64, "heads": 2, "norm_epsilon": 1e-6},
    "one head": {"d_model": 20, "heads": 1, "decoder_layers": 1},
}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(VOCABULARY, **VARIANTS[request.param])


@pytest.fixture
def small() -> Iterator[NativeDecoder]:
    decoder = NativeDecoder(random_model(VOCABULARY).decoder, "int8", threads=2)
    yield decoder
    decoder.close()


@torch.inference_mode()
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("int8", 0.03)])
def test_steps_like_torch(model: Transformer, precision: Precision, tolerance: float) -> None:
    decoder = NativeDecoder(model.decoder, precision, threads=2)
    memories = [torch.randn(n, model.config.d_model) for n in (7, 1, 12)]
    ours, theirs = [decoder.begin(m) for m in memories], [model.begin(m) for m in memories]
    agreed = 0
    for i in range(12):
        tokens = [torch.randint(VOCABULARY, (1 + (i + j) % 3,)).tolist() for j in range(3)]
        logits, expected = torch.from_numpy(decoder.step(tokens, ours)), model.step(tokens, theirs)
        error = (logits - expected).norm(dim=1) / expected.norm(dim=1)
        assert error.max() < tolerance
        agreed += int((logits.argmax(1) == expected.argmax(1)).sum())
    assert agreed >= (36 if precision == "fp32" else 30)
    assert [s.length for s in ours] == [s.length for s in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        for layer in range(model.config.decoder_layers):
            keys = torch.from_numpy(mine.cross.keys[layer]).float()
            torch.testing.assert_close(keys, other.cross.keys[layer], rtol=0, atol=tolerance * 4)
    decoder.close()


@torch.inference_mode()
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_chooses_like_torch(threads: int) -> None:
    model = random_model(VOCABULARY, output_bias=True)
    decoder = NativeDecoder(model.decoder, "fp32", threads)
    memory = torch.randn(6, model.config.d_model)
    ours, theirs = (
        [decoder.begin(memory) for _ in range(5)],
        [model.begin(memory) for _ in range(5)],
    )
    never, denied = (3, 17, 300), {2: (0,), 3: (5, 6, 299)}
    for i in range(8):
        tokens = [[(7 * i + j) % VOCABULARY] for j in range(5)]
        logits = model.step(tokens, theirs)
        denied[1] = tuple(sorted(logits[1].topk(2 + i).indices.tolist()))
        asked = asked_of(denied=denied, logits={3})
        chosen = decoder.advance(tokens, ours, never, asked)
        allowed = logits.index_fill(1, torch.tensor(never), float("-inf"))
        for row, extra in denied.items():
            allowed[row, list(extra)] = float("-inf")
        assert chosen.ids == allowed.argmax(1).tolist()
        expected = logits.log_softmax(1)[range(5), chosen.ids]
        torch.testing.assert_close(
            torch.tensor(chosen.log_probabilities), expected, rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(
            torch.tensor(chosen.log_sums), logits.logsumexp(1), rtol=1e-5, atol=1e-5
        )
        assert chosen.logits.keys() == {3}
        torch.testing.assert_close(
            torch.from_numpy(chosen.logits[3]), logits[3], rtol=1e-4, atol=1e-5
        )
    decoder.close()


def test_threads_that_slept_may_run_where_they_might_before(small: NativeDecoder) -> None:
    def allowed() -> dict[int, set[int]]:
        return {i: os.sched_getaffinity(i) for i in map(int, os.listdir("/proc/self/task"))}

    before = allowed()  # a team that has just worked may still be on its way back
    state = small.begin(torch.randn(3, 32))
    for token in range(8):
        time.sleep(0.002)  # longer than the threads wait for work before they sleep
        small.advance([[token]], [state])
    assert allowed() == before


def test_log_probabilities_can_be_left_out(small: NativeDecoder) -> None:
    state = small.begin(torch.randn(3, 32))
    twin = state.fork()
    without = small.advance([[5, 6]], [state], log_probabilities=False)
    assert without.log_probabilities == []
    assert without.ids == small.advance([[5, 6]], [twin]).ids


@pytest.mark.parametrize("vocabulary", [1, 5, 16, 250, 256, 257, 513, 1030])
def test_any_vocabulary(vocabulary: int) -> None:
    torch.manual_seed(2)
    model = Transformer(tiny_config(vocabulary)).eval()
    with torch.inference_mode():
        for threads in (1, 3):
            decoder = NativeDecoder(model.decoder, "fp32", threads)
            memory = torch.randn(4, 32)
            ours, theirs = decoder.begin(memory), model.begin(memory)
            expected = model.step([[0]], [theirs])
            chosen = decoder.advance([[0]], [ours], asked=asked_of(logits={0}))
            torch.testing.assert_close(
                torch.from_numpy(chosen.logits[0])[None], expected, rtol=1e-4, atol=1e-5
            )
            assert chosen.ids == expected.argmax(1).tolist()
            decoder.close()


def test_equally_likely_ids_go_to_the_first() -> None:
    model = random_model(VOCABULARY, tie_output=False, share_embeddings=False)
    with torch.no_grad():
        model.decoder.output.weight.fill_(0.5)
    for threads in (1, 2, 3):
        decoder = NativeDecoder(model.decoder, "int8", threads)
        assert decoder.advance([[3]], [decoder.begin(torch.ones(2, 32))], never=(0, 1)).ids == [2]
        decoder.close()


def test_states_are_the_torch_decoders_own(small: NativeDecoder) -> None:
    state = small.begin(torch.randn(7, 32))
    assert state.cross.size_bytes == CrossCache.bytes_for(7, 2, 32, small.element_bytes)
    for count in (1, 30, 1, 1):
        small.step([[3] * count], [state])
        assert state.own.size_bytes == SelfCache.bytes_for(state.length, 2, 32, small.element_bytes)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[5], [VOCABULARY]], "tokens: must be below 301, got 301"),
        ([[5], [-1]], "tokens: must be below 301, got -1"),
        ([[5], []], "tokens: at least one per sequence"),
        ([[5], [5] * 48], r"positions: at most max_positions \(48\), got 49"),
        ([], "tokens: too few"),
    ],
)
def test_a_bad_step_changes_nothing(
    small: NativeDecoder, tokens: list[list[int]], message: str
) -> None:
    states = [small.begin(torch.randn(3, 32)) for _ in tokens]
    for state in states:
        small.advance([[7]], [state])
    before = [(state.own.keys, state.own.values) for state in states]
    with pytest.raises(ValueError, match=message):
        small.advance(tokens, states)
    for state, (keys, values) in zip(states, before, strict=True):
        assert state.length == 1
        assert np.array_equal(state.own.keys, keys)
        assert np.array_equal(state.own.values, values)


@pytest.mark.parametrize("isa", instruction_sets(), ids=lambda isa: isa.name)
@pytest.mark.parametrize("never", [(), (0, 299)])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("distinct", [1, 7, 400, 3000])
@torch.inference_mode()
def test_candidates_are_the_likeliest_and_of_equals_the_first(
    distinct: int, threads: int, never: tuple[int, ...], isa: InstructionSet
) -> None:
    separate: dict[str, object] = VARIANTS["separate output"]
    model = Transformer(tiny_config(3000, **separate)).eval()
    for values in model.decoder.output.parameters():
        values.copy_(torch.randn_like(values)[torch.arange(3000) % distinct])
    decoder = NativeDecoder(model.decoder, "fp32", threads, isa=isa)
    counts = {0: 1, 1: 5, 2: 51, 3: 200, 4: 1000, 5: 3000}
    states = [decoder.begin(torch.randn(3, model.config.d_model)) for _ in counts]
    asked = asked_of(candidates=counts, logits=set(counts), denied=dict.fromkeys(counts, (2, 1800)))
    answer = decoder.advance([[5]] * len(counts), states, never, asked)
    decoder.close()
    for i, count in counts.items():
        row = answer.logits[i].copy()
        row[[2, 1800, *never]] = -np.inf
        ids = (-row).argsort(kind="stable")[: min(count, 2998 - len(never))]
        assert answer.candidates[i].ids == ids.tolist()
        assert answer.candidates[i].logits == row[ids].tolist()


@torch.inference_mode()
def test_draws_are_those_of_torch() -> None:
    model = random_model(VOCABULARY, **VARIANTS["separate output"])
    ours, theirs = NativeDecoder(model.decoder, "fp32", 2), TorchDecoder(model.decoder)
    memories = [torch.randn(5, model.config.d_model) * 9 for _ in range(40)]
    draws = {
        i: DRAW._replace(point=i / 40, top_k=(math.nan, 5)[i % 2], among=2 + i % 30)
        for i in range(40)
    }
    asked = asked_of(
        draws=draws, denied=dict.fromkeys(range(9), (7, 290)), candidates={3: 2, 30: 9}
    )
    tokens = [[i] for i in range(40)]
    got = ours.advance(tokens, [ours.begin(m) for m in memories], (3,), asked)
    expected = theirs.advance(tokens, [theirs.begin(m) for m in memories], (3,), asked)
    ours.close()
    assert got.ids == expected.ids
    assert 5 < got.ids.count(-1) < 35
    drawn = [i for i, token in enumerate(got.ids) if token >= 0]
    assert [got.log_probabilities[i] for i in drawn] == pytest.approx(
        [expected.log_probabilities[i] for i in drawn], abs=1e-4
    )


@torch.inference_mode()
@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_draws_from_all_tokens_are_those_of_torch(temperature: float) -> None:
    separate: dict[str, object] = VARIANTS["separate output"]
    torch.manual_seed(3)
    model = Transformer(tiny_config(3000, **separate)).eval()
    ours, theirs = NativeDecoder(model.decoder, "fp32", 3), TorchDecoder(model.decoder)
    memories = [torch.randn(5, model.config.d_model) * 9 for _ in range(60)]
    ways = (
        Draw(temperature, math.nan, math.nan, math.nan, 0.0, 0.0),
        Draw(temperature, math.nan, math.nan, 0.02, 0.0),
        Draw(temperature, math.nan, 0.9, math.nan, 0.0, 0.0, 3000),
    )
    draws = {i: ways[i % 3]._replace(point=i / 60) for i in range(60)}
    denied = dict.fromkeys(range(50), tuple(range(0, 3000, 2)))
    asked = asked_of(draws=draws, denied=denied, candidates=dict.fromkeys(range(0, 60, 5), 3))
    tokens = [[i] for i in range(60)]
    got = ours.advance(tokens, [ours.begin(m) for m in memories], (5,), asked)
    expected = theirs.advance(tokens, [theirs.begin(m) for m in memories], (5,), asked)
    ours.close()
    assert got.ids == expected.ids
    assert got.log_probabilities == pytest.approx(expected.log_probabilities, abs=1e-4)
    for i, few in expected.candidates.items():
        assert got.candidates[i].ids[:3] == few.ids
    assert len(set(got.ids)) > 5


@torch.inference_mode()
def test_a_draw_takes_the_point_of_seed_and_position(small: NativeDecoder) -> None:
    memory = torch.randn(5, 32)
    flat = Draw(3.0, math.nan, math.nan, math.nan, total=0.0)
    for seed, first in ((0, 0), (2**64 - 1, 2), (2**40 + 3, -1000)):
        question = Question(draw=flat, seed=seed, first=first)
        points = [uniform(seed, position - first) for position in range(2, 9)]
        asked = {i: Question(draw=flat._replace(point=point)) for i, point in enumerate(points)}
        got, expected = (
            small.advance([range(9)], [small.begin(memory)], (), each, [7])
            for each in (dict.fromkeys(range(7), question), asked)
        )
        assert got.ids == expected.ids
        assert len(set(got.ids)) > 3


def test_other_misuse_is_refused(small: NativeDecoder) -> None:
    state = small.begin(torch.randn(3, 32))
    with pytest.raises(IndexError, match="never: ids must be below 301"):
        small.advance([[5]], [state], never=(301,))
    for ids in ((301,), (-1, 4)):
        with pytest.raises(ValueError, match="denied: no such id"):
            small.advance([[5]], [state], asked=asked_of(denied={0: ids}))
    with pytest.raises(ValueError, match="denied: must be ascending"):
        small.advance([[5]], [state], asked=asked_of(denied={0: (4, 4)}))
    with pytest.raises(ValueError, match="given: no such id"):
        small.advance([[5]], [state], asked=asked_of(given={0: 301}))
    with pytest.raises(ValueError, match="candidates: 0 to as many as there are ids, got 302"):
        small.advance([[5]], [state], asked=asked_of(candidates={0: 302}))
    with pytest.raises(IndexError):
        small.advance([[5]], [state], asked=asked_of(denied={1: (2,)}))
    with pytest.raises(IndexError):
        small.advance([[5]], [state], asked=asked_of(draws={1: DRAW._replace(among=4)}))
    with pytest.raises(IndexError, match="asked: outputs must be below 1, got 1"):
        small.advance([[5]], [state], asked=asked_of(draws={1: DRAW}))
    with pytest.raises(ValueError, match="draws: among 0 to as many as there are ids, got 302"):
        small.advance([[5]], [state], asked=asked_of(draws={0: DRAW._replace(among=302)}))
    with pytest.raises(ValueError, match="draws: from all tokens either weigh them or keep near"):
        small.advance([[5]], [state], asked=asked_of(draws={0: DRAW._replace(total=math.nan)}))
    with pytest.raises(ValueError, match="memory: must be"):
        small.begin(torch.randn(3, 31))
    with pytest.raises(ValueError, match="threads: must be at least 1"):
        NativeDecoder(random_model(VOCABULARY).decoder, "int8", threads=0)
    assert state.length == 0
    small.close()
    small.close()
    with pytest.raises(ValueError, match="plan: is closed"):
        small.advance([[5]], [state])


def test_memories_are_projected_beside_steps(small: NativeDecoder) -> None:
    state, memory = small.begin(torch.randn(3, 32)), torch.randn(4, 32)
    expected = small.begin(memory).cross.layer(1)[1]
    with ThreadPoolExecutor(1) as beside:
        projected = [beside.submit(small.begin, memory) for _ in range(50)]
        for _ in range(20):
            small.advance([[5]], [state])
    assert all(np.array_equal(each.result().cross.layer(1)[1], expected) for each in projected)


def test_a_row_that_is_not_a_number_harms_no_other() -> None:
    model = random_model(VOCABULARY)
    with torch.no_grad():
        model.decoder.embedding.tokens.weight[9] = float("nan")
    decoder = NativeDecoder(model.decoder, "int8", threads=2)
    memory = torch.randn(3, 32)
    expected = decoder.advance([[5]], [decoder.begin(memory)])
    mixed = decoder.advance([[9], [5]], [decoder.begin(memory) for _ in range(2)])
    assert 0 <= mixed.ids[0] < VOCABULARY
    assert mixed.ids[1] == expected.ids[0]
    decoder.close()
