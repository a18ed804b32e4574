"""What another thread does for the event loop: in order, with its failures, and to the end."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from decoder_service.errands import Errand, Runner


async def test_results_and_failures_come_back() -> None:
    runner = Runner("test")
    done, failing = Errand(threading.get_ident), Errand(lambda: 1 // 0)
    runner.run(done)
    runner.run(failing)
    assert await done.answer != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await failing.answer
    runner.close()


async def test_an_errand_that_nobody_waits_for_any_more_is_not_run() -> None:
    runner, gate, ran = Runner("test"), threading.Event(), list[str]()
    dropped, last = Errand(lambda: ran.append("dropped")), Errand(lambda: ran.append("last"))
    runner.run(Errand(gate.wait))
    runner.run(dropped)
    runner.run(last)
    dropped.answer.cancel()
    gate.set()
    await last.answer
    assert ran == ["last"]
    runner.close()


async def test_an_errand_given_up_while_it_runs_disturbs_nobody() -> None:
    runner, gate, running = Runner("test"), threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        gate.wait()

    errand, after = Errand(work), Errand(lambda: 7)
    runner.run(errand)
    runner.run(after)
    await asyncio.to_thread(running.wait)
    errand.answer.cancel()
    gate.set()
    assert await after.answer == 7
    runner.close()


async def test_closing_waits_for_what_was_given() -> None:
    runner, ran = Runner("test"), list[int]()
    for number in range(5):
        runner.run(Errand(partial(ran.append, number)))
    runner.close()
    assert ran == [0, 1, 2, 3, 4]
