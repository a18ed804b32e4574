"""The engine's promise, as a property: whatever a session goes through, its bits are its own.

Random mixes of sessions join at random times, are cancelled in mid-stream, rewound and forked, run
on and leave, greedy and drawn, through the real engine and its thread. Whatever a target holds then
(ids, log-probabilities, its own keys and values) must be, bit for bit, what the same memory gives
alone, without interruption, on one thread and AVX2.
"""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from prometheus_client import CollectorRegistry

from decoder_service.engine import DecoderEngine
from decoder_service.generation import Generation
from decoder_service.metrics import DecoderMetrics
from splitformer.generation import (
    Drafting,
    DraftMode,
    GenerationOptions,
    RowCosts,
    Target,
    Vocabulary,
    decoding_for,
    run,
)
from splitformer.model import Transformer
from splitformer.model.native_decoder import NativeDecoder
from splitformer.native import InstructionSet, Precision
from tests.parity.test_native import VOCABULARY as SIZE
from tests.parity.test_native_invariance import own_of, same
from tests.support.checkpoints import random_model
from tests.support.native import instruction_sets, needs_native

pytestmark = needs_native
WIDTH, POSITIONS, TOKENS, START = 32, 48, 40, 3
VOCABULARY = Vocabulary(eos_id=1, never=(0, 2))
EAGER = Drafting(RowCosts((1.0, 1.0)), True, bytes(SIZE), frozenset((0, 1, 2)))
"""Guesses are made wherever there is the least ground for one."""

SETUPS = [(threads, isa) for threads in (1, 2, 3) for isa in instruction_sets()]


@dataclass(frozen=True)
class Life:
    """What a session goes through.

    Attributes:
        memory: Seed and rows of its memory.
        seed: For drawing; None: greedy.
        late: Event-loop turns before it joins.
        runs: For each generation: tokens wanted, read before it is cancelled (or None), kept after.
        forked: Tokens a fork keeps, which then lives on beside it; None: no fork.
        beams: For beam search, whose generations all want everything, and which is rewound and
            forked to the beginning only: the tokens that it has found depend on where it began.
        draft: Where its guesses come from, unless it searches; alone it makes none.
    """

    memory: tuple[int, int]
    seed: int | None
    late: int
    runs: tuple[tuple[int, int | None, int], ...]
    forked: int | None
    beams: int = 1
    draft: DraftMode = DraftMode.OFF


lives = st.builds(
    Life,
    memory=st.tuples(st.integers(0, 5), st.integers(1, 40)),
    seed=st.none() | st.integers(0, 3),
    late=st.integers(0, 30),
    runs=st.lists(
        st.tuples(st.integers(1, 12), st.none() | st.integers(0, 6), st.integers(0, TOKENS)),
        min_size=1,
        max_size=3,
    ).map(tuple),
    forked=st.none() | st.integers(0, TOKENS),
    beams=st.sampled_from((1, 1, 1, 3)),
    draft=st.sampled_from(DraftMode),
)


@cache
def model() -> Transformer:
    """One model for all."""
    torch.manual_seed(0)
    return random_model(SIZE, d_model=WIDTH, max_positions=POSITIONS)


def memory_of(life: Life) -> torch.Tensor:
    seed, rows = life.memory
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


def options_of(life: Life) -> GenerationOptions:
    if life.beams > 1:
        return GenerationOptions(num_beams=life.beams, length_penalty=1.5, min_new_tokens=9)
    if life.seed is None:
        return GenerationOptions(min_new_tokens=TOKENS)
    return GenerationOptions(min_new_tokens=TOKENS, temperature=0.8, top_k=20, seed=life.seed)


def new_target(state: Any) -> Target:
    return Target((START,), state, silent(), POSITIONS)


def silent() -> Any:
    """A detokenizer for ids without text."""
    return SimpleNamespace(add=lambda token: "", finish=lambda: "", fork=silent)


def cut(target: Target, kept: int) -> None:
    """Rewind a target that no generation is using."""
    kept = min(kept, len(target.produced))
    target.state.truncate(min(target.state.length, len(target.start) + kept - 1))
    if kept < len(target.produced):
        target.end = None
    del target.produced[kept:]


async def generate(engine: DecoderEngine, target: Target, life: Life, run: Any) -> None:
    """Run one generation to its end, or leave it after some tokens; then rewind."""
    wanted, read, kept = run
    if life.beams > 1:
        wanted, kept = TOKENS, TOKENS if kept else 0
    limit = min(TOKENS, len(target.produced) + wanted)
    options = options_of(life)
    if life.beams == 1:
        options = dataclasses.replace(options, draft=life.draft)
    decoding = decoding_for(target, options, limit, VOCABULARY, drafting=EAGER)
    generation = Generation(decoding, window=3)
    engine.join(generation)
    come = 0
    while (read is None or come < read) and isinstance(await generation.next(), tuple):
        come += 1
        if generation.take(1):
            engine.wake()
    if not generation.left.done():
        engine.leave(generation)
    await generation.left
    cut(target, kept)


async def live(engine: DecoderEngine, life: Life) -> list[Target]:
    """Take a session through its life; return its target and that of its fork."""
    for _ in range(life.late):
        await asyncio.sleep(0)
    targets = [new_target(await engine.begin(memory_of(life).numpy()))]
    for each in life.runs:
        await generate(engine, targets[0], life, each)
    if life.forked is not None:
        twin = new_target(await engine.fork(targets[0].state))
        twin.produced = list(targets[0].produced)
        cut(twin, life.forked if life.beams == 1 else 0)
        targets.append(twin)
    last = (TOKENS, None, TOKENS)
    await asyncio.gather(*(generate(engine, target, life, last) for target in targets))
    return targets


async def live_together(decoder: NativeDecoder, many: list[Life]) -> list[list[Target]]:
    metrics = DecoderMetrics(CollectorRegistry())
    engine = DecoderEngine(decoder, VOCABULARY.never, 4, metrics)
    try:
        return list(await asyncio.gather(*(live(engine, life) for life in many)))
    finally:
        await asyncio.to_thread(engine.close)


def alone(decoder: NativeDecoder, life: Life) -> Target:
    """The same memory, without company and without interruption."""
    target = new_target(decoder.begin(memory_of(life)))
    decoding = decoding_for(target, options_of(life), TOKENS, VOCABULARY)
    run(decoder, decoding, VOCABULARY.never)
    return target


def found(target: Target) -> list[Any]:
    """All that a beam search has found, scores included."""
    search = target.finished_search
    everything = GenerationOptions(num_beams=4, num_return_sequences=4)
    return [] if search is None else list(search.found(everything))


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize(("threads", "isa"), SETUPS)
def test_no_life_changes_a_bit(precision: Precision, threads: int, isa: InstructionSet) -> None:
    decoder = NativeDecoder(model().decoder, precision, threads, isa=isa)
    reference = NativeDecoder(model().decoder, precision, 1, isa=InstructionSet.AVX2)

    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(lives, min_size=1, max_size=9))
    def holds(many: list[Life]) -> None:
        for life, targets in zip(many, asyncio.run(live_together(decoder, many)), strict=True):
            expected = alone(reference, life)
            for target in targets:
                assert [(t.id, t.log_probability) for t in target.produced] == [
                    (t.id, t.log_probability) for t in expected.produced
                ]
                assert found(target) == found(expected)
                assert target.state.length == expected.state.length
                assert same(own_of(target.state), own_of(expected.state))

    holds()
    decoder.close()
    reference.close()
