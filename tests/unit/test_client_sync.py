"""The event loop on a thread, and plain iterators over asynchronous ones."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest

from splitformer import errors
from splitformer_client import Client, sync
from splitformer_client.aio import AsyncClient
from splitformer_client.portal import Portal, Stream


@pytest.fixture
def portal() -> Iterator[Portal]:
    made = Portal()
    yield made
    made.close()


class Counting:
    """Counts up, and remembers whether it was closed."""

    def __init__(self, stop: int = 1_000_000, delay: float = 0.0) -> None:
        self.closed = 0
        self._numbers = iter(range(stop))
        self._delay = delay

    async def __anext__(self) -> int:
        await asyncio.sleep(self._delay)
        for number in self._numbers:
            return number
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def test_a_stream_runs_to_its_end(portal: Portal) -> None:
    items = Counting(3)
    stream = Stream(portal, items)
    assert list(stream) == [0, 1, 2]
    assert list(stream) == []
    stream.close()
    assert items.closed == 0  # there was nothing left to stop


def test_break_closes(portal: Portal) -> None:
    items = Counting()
    for number in Stream(portal, items):
        if number == 2:
            break
    gc.collect()
    eventually(lambda: items.closed == 1)


def test_with_closes_before_going_on(portal: Portal) -> None:
    items = Counting()
    with Stream(portal, items) as stream:
        assert next(stream) == 0
    assert items.closed == 1
    assert list(stream) == []


def test_an_error_closes_and_is_raised_as_it_is(portal: Portal) -> None:
    async def failing() -> AsyncGenerator[int]:
        yield 1
        raise errors.DataLossError("lost")

    stream = Stream(portal, failing())
    assert next(stream) == 1
    with pytest.raises(errors.DataLossError, match="lost"):
        next(stream)
    assert list(stream) == []


def test_an_interrupt_stops_what_is_running(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    async def slow() -> AsyncGenerator[int]:
        try:
            await asyncio.sleep(30)
            yield 1
        finally:
            await asyncio.sleep(0.05)  # as clean-up over the network does
            steps.append("cleaned up")

    stream = Stream(portal, slow())
    submit: Any = portal._submit

    def interrupted(work: Any) -> Any:
        future = submit(work)
        monkeypatch.setattr(portal, "_submit", submit)
        time.sleep(0.05)

        def result(timeout: float | None = None) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(future, "result", result)
        return future

    monkeypatch.setattr(portal, "_submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert steps == ["cleaned up"]


def test_many_threads_share_one_loop(portal: Portal) -> None:
    async def work(number: int) -> tuple[int, str]:
        await asyncio.sleep(0.001)
        return number, threading.current_thread().name

    results: list[tuple[int, str]] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(portal.run(work(n)))) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [(number, "splitformer-client") for number in range(20)]


def test_closing_cancels_what_is_running() -> None:
    portal = Portal()
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            portal.run(asyncio.sleep(30))
        except errors.CancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    portal.close()
    thread.join(5)
    assert len(caught) == 1
    portal.close()  # once more does no harm


def test_a_closed_portal_says_so() -> None:
    portal = Portal()
    portal.close()
    with pytest.raises(errors.FailedPreconditionError) as caught:
        portal.run(asyncio.sleep(0))
    assert caught.value.reason == "CLIENT_CLOSED"


def test_a_client_that_is_let_go_stops_its_thread() -> None:
    client = sync.connect("127.0.0.1:1", "127.0.0.1:1")
    thread = client._portal._thread
    assert thread.is_alive()
    del client
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_an_unreachable_server_is_an_error_of_ours() -> None:
    with (
        sync.connect("127.0.0.1:1", "127.0.0.1:1") as client,
        pytest.raises(errors.UnavailableError, match=r"encoder 127\.0\.0\.1:1: "),
    ):
        client.translate("hello", "ja")


def test_a_closed_client_says_so() -> None:
    client = sync.connect("127.0.0.1:1", "127.0.0.1:1")
    client.close()
    client.close()
    with pytest.raises(errors.FailedPreconditionError, match="closed"):
        client.translate("hello", "ja")


def test_every_call_of_the_asynchronous_client_has_a_plain_one_that_takes_the_same() -> None:
    calls = {name for name in dir(AsyncClient) if not name.startswith("_")}
    plain = {name for name in dir(Client) if not name.startswith("_")}
    assert calls - plain == {"bulk"}
    for name in plain:
        theirs = inspect.signature(getattr(AsyncClient, name)).parameters
        assert inspect.signature(getattr(Client, name)).parameters == theirs
        assert not inspect.iscoroutinefunction(getattr(Client, name))
