"""The engine between two steps: new sessions are prepared, but never for longer than a step."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from decoder_service import engine
from decoder_service.generation import Generation
from decoder_service.metrics import DecoderMetrics
from splitformer.errors import UnavailableError
from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary
from splitformer.model.stepping import Advanced

STEP_SECONDS, OPENING_SECONDS = 1.0, 0.6
TOKENS = 6


class Clock:
    """Time that passes only when something is computed."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Diary:
    """A decoder that computes nothing, takes its time, and writes down what it was asked for."""

    begins_beside = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: list[str] = []
        self.stepping, self.may_step = threading.Event(), threading.Event()

    async def a_step(self) -> None:
        assert await asyncio.to_thread(self.stepping.wait, 20), "no step has begun"

    def begin(self, memory: Any) -> Any:
        self.entries.append("opening")
        self.clock.now += OPENING_SECONDS
        return len(self.entries)

    def advance(self, tokens: Any, states: Any, *_: Any, **__: Any) -> Advanced:
        self.stepping.set()
        self.may_step.wait()
        self.entries.append("step")
        self.clock.now += STEP_SECONDS
        return Advanced([7] * len(states), [0.0] * len(states))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Diary:
    clock = Clock()
    monkeypatch.setattr(engine, "time", clock)
    return Diary(clock)


def engine_of(diary: Diary) -> engine.DecoderEngine:
    metrics = DecoderMetrics(CollectorRegistry())
    return engine.DecoderEngine(diary, (), 4, metrics)  # type: ignore[arg-type]


def generation() -> Generation:
    detokenizer: Any = SimpleNamespace(add=lambda token: "")
    state: Any = SimpleNamespace(length=0)
    target = Target((3,), state, detokenizer, 100)
    decoding = Sequential(target, GenerationOptions(), TOKENS, Vocabulary(eos_id=1))
    return Generation(decoding, window=100)


async def test_openings_hold_running_generations_up_for_a_step_at_most(diary: Diary) -> None:
    running = engine_of(diary)
    one = generation()
    running.join(one)
    await diary.a_step()
    memory = np.zeros((1, 1), np.float32)
    openings = [asyncio.ensure_future(running.begin(memory)) for _ in range(5)]
    await asyncio.sleep(0)  # all five are waiting when the step ends
    diary.may_step.set()
    assert len(await asyncio.gather(*openings)) == 5
    await one.left
    await asyncio.to_thread(running.close)
    two = ["opening"] * 2  # after the first there is time left, after the second there is none
    assert diary.entries == ["step", *two, "step", *two, "step", "opening", *["step"] * 3]


async def test_memories_are_projected_while_a_step_runs(diary: Diary) -> None:
    diary.begins_beside = True
    running = engine_of(diary)
    one = generation()
    running.join(one)
    await diary.a_step()
    await running.begin(np.zeros((1, 1), np.float32))
    diary.may_step.set()
    await one.left
    await asyncio.to_thread(running.close)
    assert diary.entries == ["opening", *["step"] * TOKENS]


async def test_openings_that_wait_when_the_engine_stops_are_answered(diary: Diary) -> None:
    running = engine_of(diary)
    one = generation()
    running.join(one)
    await diary.a_step()
    memory = np.zeros((1, 1), np.float32)
    openings = [asyncio.ensure_future(running.begin(memory)) for _ in range(5)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(asyncio.to_thread(running.close))
    while running._inbox.qsize() < len(openings) + 1:  # noqa: ASYNC110 (until stop waits too)
        await asyncio.sleep(0.001)
    diary.may_step.set()
    await asyncio.gather(*openings)
    await closing
    with pytest.raises(UnavailableError):
        await running.begin(memory)
