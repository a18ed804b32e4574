"""Many lines through `splitformer translate`: one stream, their order, and lines that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from splitformer.errors import InvalidArgumentError
from splitformer_client import aio
from splitformer_client.aio import AsyncClient
from tests.conftest import Services, nothing_is_held
from tests.service.test_client_command import LINES, TEXT, environment, expected, run, tabbed
from tests.support.servers import ServerThread
from tests.support.waiting import comes_true

__all__ = ["environment", "expected"]

LONG = " ".join(["Do you want to delete file 1?"] * 12)


def started(services: Services, method: str) -> float:
    labels = {"grpc_service": "splitformer.v1.EncoderService", "grpc_method": method}
    return services.encoder.metric("grpc_server_started_total", **labels)


def encoded(services: Services) -> float:
    return services.encoder.metric("splitformer_encoder_sources_total")


def test_lines_are_encoded_on_one_stream_once_for_all_languages(
    environment: dict[str, str], services: Services
) -> None:
    streams, calls, sources = (
        started(services, "EncodeBatch"),
        started(services, "Encode"),
        encoded(services),
    )
    stdin = "\n".join(LINES) + "\n"
    options = ("--to", "ja,de,fr", "--max-new-tokens", "2")
    done = run(environment, "translate", *options, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split("\t")[0] for line in done.stdout.split("\n")[:-1]] == ["ja", "de", "fr"] * 12
    assert started(services, "EncodeBatch") == streams + 1
    assert started(services, "Encode") == calls
    assert encoded(services) == sources + len(LINES)


def test_a_line_that_fails_is_told_and_the_others_go_on(
    environment: dict[str, str], expected: object
) -> None:
    stdin = f"{TEXT}\n{LONG}\n{LINES[0]}\n"
    options = ("--to", "de", "--max-new-tokens", "6", "--long-text", "refuse")
    done = run(environment, "translate", *options, stdin=stdin)
    assert done.returncode == 1
    assert done.stderr.startswith("error: line 2: source.text: ")
    assert done.stderr.endswith("(SOURCE_TOO_LONG)\n")
    texts = [expected(line, "de") if line else "" for line in (TEXT, "", LINES[0])]  # type: ignore[operator]
    assert done.stdout == "".join(tabbed("de", text) for text in texts)
    done = run(environment, "translate", *options, "--json", stdin=stdin)
    assert [
        json.loads(line)["source"] for line in done.stdout.split("\n")[:-1]
    ] == stdin.splitlines()


def test_a_long_line_is_cut_and_its_pieces_go_over_the_stream_too(
    environment: dict[str, str], services: Services
) -> None:
    calls = started(services, "Encode")
    done = run(environment, "translate", "-t", "de", "--max-new-tokens", "2", stdin=f"{LONG}\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert started(services, "Encode") == calls


@pytest.fixture
async def client(services: Services) -> AsyncIterator[AsyncClient]:
    async with aio.connect(services.encoder.address, services.decoder.address) as connected:
        yield connected


async def test_inside_the_block_everything_is_as_outside(client: AsyncClient) -> None:
    alone = [await client.translate(line, ["ja", "de"], max_new_tokens=6) for line in LINES]
    async with client.bulk() as bulk:
        together = await asyncio.gather(
            *(client.translate(line, ["ja", "de"], max_new_tokens=6) for line in LINES)
        )
        with pytest.raises(InvalidArgumentError) as caught:
            await client.translate(" ", "ja")
        assert caught.value.reason == "EMPTY_SOURCE"
        assert bulk.done == len(LINES) + 1
    texts = [[(t.language, t.text) for t in each] for each in together]
    assert texts == [[(t.language, t.text) for t in each] for each in alone]


async def test_who_leaves_early_leaves_nothing(client: AsyncClient, services: Services) -> None:
    async with client.bulk():
        tasks = [asyncio.create_task(client.translate(line, "ja")) for line in LINES]
        await comes_true(lambda: services.encoder.service.store.leases > 0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await comes_true(lambda: nothing_is_held(services))


async def test_a_stream_that_breaks_is_not_the_end_of_its_sources(
    services: Services, servers: ServerThread
) -> None:
    encoder = servers.start_encoder(services.model, drain_seconds=0)
    decoder = servers.start_decoder(services.model, encoders=("127.0.0.1:*",))
    async with aio.connect(encoder.address, decoder.address) as client, client.bulk():
        first = await client.translate(TEXT, "de", max_new_tokens=6)
        port = encoder.server.port
        await asyncio.to_thread(servers.stop, encoder)
        await asyncio.to_thread(servers.start_encoder, services.model, port=port)
        again = await client.translate(TEXT, "de", max_new_tokens=6)
    assert again[0].text == first[0].text
