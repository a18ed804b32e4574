"""Lines in, results out in order, and how results are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import aclosing
from io import StringIO
from pathlib import Path

import pytest

from splitformer_client.cli.lines import given, in_order, pumped, read_lines
from splitformer_client.cli.show import json_writer, tab_writer
from splitformer_client.values import End, EndReason, Token, Translation

# --- lines ----------------------------------------------------------------------------------------


async def test_results_come_in_the_order_of_the_lines() -> None:
    running = most = 0

    async def work(line: str) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02 / (1 + int(line)))  # later lines are faster
        running -= 1
        return line.upper() + "!"

    lines = [str(number) for number in range(30)]
    results = [result async for result in in_order(given(lines), work, in_flight=5)]
    assert results == [(line, line + "!") for line in lines]
    assert 1 < most <= 5


async def test_a_failure_stops_what_is_running() -> None:
    cancelled = []

    async def work(line: str) -> str:
        if line == "bad":
            raise ValueError("bad line")
        try:
            await asyncio.sleep(30 * (line == "slow"))
        except asyncio.CancelledError:
            cancelled.append(line)
            raise
        return line

    taken = []
    with pytest.raises(ValueError, match="bad line"):  # noqa: PT012
        async for line, _ in in_order(given(["good", "bad", "slow", "slow"]), work, in_flight=4):
            taken.append(line)
    assert taken == ["good"]
    assert cancelled == ["slow", "slow"]


async def test_lines_are_not_read_far_ahead() -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "line"

    async def work(line: str) -> str:
        return line

    async with aclosing(in_order(pumped(endless()), work, in_flight=3)) as results:
        await anext(results)
        await asyncio.sleep(0.05)
        assert read < 100


async def test_an_error_of_reading_comes_after_the_lines_before_it() -> None:
    def broken() -> Iterator[str]:
        yield "one"
        raise OSError("disk on fire")

    async def work(line: str) -> str:
        return line

    taken = []
    with pytest.raises(OSError, match="disk on fire"):  # noqa: PT012
        async for line, _ in in_order(pumped(broken()), work, in_flight=3):
            taken.append(line)
    assert taken == ["one"]


def test_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    (tmp_path / "b").write_bytes("drei\n\nünf\n".encode())
    assert list(read_lines([tmp_path / "a", tmp_path / "b"])) == ["one", "two", "drei", "", "ünf"]


# --- output ---------------------------------------------------------------------------------------

ANSWERS = [
    Translation("ja", "一\n二", (Token(0, 5, "一\n二", -0.5),), End(EndReason.EOS, 1, 1)),
    Translation("de", "", (), End(EndReason.LENGTH, 0)),
]


def test_every_line_starts_with_its_language() -> None:
    file = StringIO()
    tab_writer(file)("one\ntwo", ANSWERS)
    assert file.getvalue() == "ja\t一\nja\t二\nde\t\n"


def test_json_has_one_object_per_source() -> None:
    file = StringIO()
    json_writer(file)("one\ntwo", ANSWERS)
    assert file.getvalue().count("\n") == 1
    assert "一" in file.getvalue()
    assert json.loads(file.getvalue()) == {
        "source": "one\ntwo",
        "translations": {
            "ja": {"text": "一\n二", "end": "eos", "tokens": 1, "log_probability": -0.5},
            "de": {"text": "", "end": "length", "tokens": 0, "log_probability": 0.0},
        },
    }
