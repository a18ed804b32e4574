"""The encoder engine: who shares a batch, who goes first, and who is never encoded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from encoder_service.engine import EncoderEngine, Limits
from encoder_service.metrics import EncoderMetrics
from encoder_service.segments import Segments
from splitformer.errors import ResourceExhaustedError, UnavailableError
from splitformer.v1 import tensor_pb2
from tests.support.waiting import comes_true

LIMITS = Limits(batch_tokens=8, queue=100, queue_seconds=1000.0, window_seconds=0.0)


class Diary:
    """An encoder that writes down what it is given, and waits while it is shut."""

    config: Any = None
    kernel = precision = "none"
    batch_invariant = True
    full_tokens = 32

    def __init__(self, padded: bool) -> None:
        self.padded = padded
        self.batches: list[list[list[int]]] = []
        self.opened = threading.Event()
        self.opened.set()

    def encode(self, sources: Sequence[Any]) -> list[Any]:
        self.batches.append([list(source) for source in sources])
        self.opened.wait()
        return [np.full((len(source), 2), source[0], np.float32) for source in sources]

    def close(self) -> None:
        pass


class Bench:
    """An engine over a diary, held up by a first source until all others wait."""

    def __init__(self, padded: bool = False, limits: Limits = LIMITS) -> None:
        self.diary = Diary(padded)
        self.prioritised: list[bool] = []
        self.engine = EncoderEngine(
            self.diary,
            tensor_pb2.DATA_TYPE_F32,
            limits,
            EncoderMetrics(CollectorRegistry()),
            Segments(False),
            prioritise=self.prioritised.append,
        )
        self._inbox = self.engine._inbox

    async def hold_up(self) -> None:
        self.diary.opened.clear()
        self.held = self.submit(99, length=32)
        await comes_true(lambda: len(self.diary.batches) == 1)

    def submit(self, token: int, length: int = 1, bulk: bool = False) -> asyncio.Task[Any]:
        return asyncio.create_task(self.engine.encode([token] * length, bulk))

    async def go_on(self, tasks: Sequence[asyncio.Task[Any]]) -> list[list[int]]:
        """Let all run; return the first tokens of every batch after the first."""
        await asyncio.sleep(0)
        self.diary.opened.set()
        await asyncio.gather(self.held, *tasks, return_exceptions=True)
        return [[source[0] for source in batch] for batch in self.diary.batches[1:]]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.diary.opened.set()
    await asyncio.to_thread(made.engine.close)


async def test_what_arrives_meanwhile_shares_batches_within_the_token_budget(bench: Bench) -> None:
    await bench.hold_up()
    tasks = [bench.submit(number, length=3) for number in range(5)]
    assert await bench.go_on(tasks) == [[0, 1], [2, 3], [4]]
    memories = [np.frombuffer((await task).memory.data, np.float32)[0] for task in tasks]
    assert memories == list(range(5))


async def test_a_batch_is_no_larger_than_makes_it_cheaper(bench: Bench) -> None:
    bench.diary.full_tokens = 4
    await bench.hold_up()
    tasks = [bench.submit(number, length=2) for number in range(5)]
    assert await bench.go_on(tasks) == [[0, 1], [2, 3], [4]]


async def test_bulk_goes_with_a_single_source_that_is_enough_alone(bench: Bench) -> None:
    bench.diary.full_tokens = 2
    await bench.hold_up()
    tasks = [bench.submit(0, bulk=True), *(bench.submit(n, length=2) for n in (1, 2))]
    assert await bench.go_on(tasks) == [[1, 0], [2]]


async def test_a_batch_is_waited_for_unless_all_of_it_is_bulk(bench: Bench) -> None:
    bench.diary.full_tokens = 2
    await bench.hold_up()
    tasks = [bench.submit(0), *(bench.submit(n, length=2, bulk=True) for n in (1, 2))]
    assert await bench.go_on(tasks) == [[0, 1], [2]]
    assert bench.prioritised == [True, True, False]


async def test_a_source_longer_than_the_budget_goes_alone(bench: Bench) -> None:
    await bench.hold_up()
    tasks = [bench.submit(1, length=2), bench.submit(2, length=20), bench.submit(3)]
    assert await bench.go_on(tasks) == [[1], [2], [3]]


async def test_single_sources_go_first_and_bulk_never_starves(bench: Bench) -> None:
    await bench.hold_up()
    bulk = [bench.submit(number, length=2, bulk=True) for number in (1, 2, 3)]
    single = [bench.submit(number, length=2) for number in (11, 12, 13, 14, 15)]
    assert await bench.go_on(bulk + single) == [[11, 1, 12, 13], [14, 2, 15, 3]]


async def test_a_source_whose_caller_has_gone_is_never_encoded(bench: Bench) -> None:
    await bench.hold_up()
    gone, stays = bench.submit(1), bench.submit(2)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    assert bench.engine.open == 2
    assert await bench.go_on([gone, stays]) == [[2]]
    assert bench.engine.open == bench.engine._open_tokens == 0


async def test_padded_batches_hold_sources_of_like_length() -> None:
    bench = Bench(padded=True)
    await bench.hold_up()
    tasks = [bench.submit(n, length) for n, length in ((1, 2), (2, 7), (3, 2), (4, 6), (5, 2))]
    assert await bench.go_on(tasks) == [[1, 3, 5], [2], [4]]
    await asyncio.to_thread(bench.engine.close)


async def test_a_small_batch_waits_for_company_only_while_the_engine_is_busy() -> None:
    limits = Limits(batch_tokens=8, queue=100, queue_seconds=1000.0, window_seconds=3600.0)
    bench = Bench(limits=limits)
    await bench.submit(1)  # idle: it would take an hour otherwise
    await bench.hold_up()
    small = bench.submit(2)
    await asyncio.sleep(0)
    bench.diary.opened.set()
    await bench.held
    company = bench.submit(3, length=32)  # long enough to go alone
    await asyncio.gather(small, company)
    await asyncio.to_thread(bench.engine.close)


async def test_the_queue_is_bounded_by_number_and_by_time(bench: Bench) -> None:
    await bench.hold_up()
    bench.engine._limits = Limits(8, 1, 1000.0, 0.0)
    with pytest.raises(ResourceExhaustedError, match="holds 1 sources") as caught:
        await bench.engine.encode([1])
    assert caught.value.reason == "QUEUE_FULL"
    bench.engine._limits = Limits(8, 100, 2.0, 0.0)
    bench.engine._seconds, bench.engine._tokens = 10.0, 32.0  # as many tokens are open
    assert bench.engine.expected_wait == 10.0
    with pytest.raises(ResourceExhaustedError, match=r"10\.0 s of work") as caught:
        await bench.engine.encode([1])
    assert caught.value.retry_after == 8.0
    bench.engine._limits = LIMITS
    await bench.go_on([])


async def test_what_waits_when_the_engine_stops_is_answered(bench: Bench) -> None:
    await bench.hold_up()
    waiting = bench.submit(1)
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(bench.engine.close))
    await comes_true(lambda: bench.engine._closed)
    bench.diary.opened.set()
    await closing
    with pytest.raises(UnavailableError):
        await waiting
    with pytest.raises(UnavailableError):
        await bench.engine.encode([1])
