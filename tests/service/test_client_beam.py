"""Beam search through the client and the command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest

import splitformer_client
from splitformer.errors import InvalidArgumentError
from splitformer_client import End, Token, aio
from tests.conftest import Services

TEXT = "Open the file."
COMMAND = [sys.executable, "-m", "splitformer_client", "translate", "--to", "de"]
BEAM = ["--num-beams", "4", "--num-return-sequences", "3", "--max-new-tokens", "12"]


def addresses(services: Services) -> tuple[str, str]:
    return services.encoder.address, services.decoder.address


def test_the_best_comes_as_the_translation_the_others_with_the_end(services: Services) -> None:
    with splitformer_client.connect(*addresses(services)) as client:
        (found,) = client.translate(
            TEXT, "de", num_beams=4, num_return_sequences=3, length_penalty=0.7, max_new_tokens=12
        )
        (greedy,) = client.translate(TEXT, "de", max_new_tokens=12)
    assert len(found.hypotheses) == 3
    assert found.hypotheses[0].text == found.text
    assert found.hypotheses[0].tokens == found.tokens
    assert found.hypotheses[0].reason == found.end.reason
    scores = [hypothesis.score for hypothesis in found.hypotheses]
    assert scores == sorted(scores, reverse=True)
    assert greedy.hypotheses == ()


def test_what_is_certain_is_streamed_and_the_end_has_the_rest(services: Services) -> None:
    async def collect() -> list[Token | End]:
        async with aio.connect(*addresses(services)) as client:
            options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 10}
            stream = client.translate_stream(TEXT, "de", **options)  # type: ignore[arg-type]
            return [event async for _, event in stream]

    *tokens, end = asyncio.run(collect())
    assert isinstance(end, End)
    assert tuple(tokens) == end.hypotheses[0].tokens
    assert len(end.hypotheses) == 2


def test_sessions_give_hypotheses_too(services: Services) -> None:
    with (
        splitformer_client.connect(*addresses(services)) as client,
        client.open_session(client.encode(TEXT), language="de") as session,
    ):
        generation = session.generate(num_beams=3, num_return_sequences=3, max_new_tokens=8)
        tokens = tuple(generation)
        assert generation.end.hypotheses[0].tokens == tokens
        again = session.generate(
            start_index=2, num_beams=3, num_return_sequences=3, max_new_tokens=6
        )
        assert tuple(again) == tokens[2:]
        assert again.end.hypotheses == generation.end.hypotheses


def test_a_text_of_several_paragraphs(services: Services) -> None:
    text = "Open the file.\n\nSave all changes."
    with splitformer_client.connect(*addresses(services)) as client:
        (found,) = client.translate(
            text, "de", num_beams=2, num_return_sequences=2, max_new_tokens=6
        )
    assert found.hypotheses[0].text == found.text
    assert found.hypotheses[0].tokens == found.tokens


def test_contradictions_are_the_servers_to_name(services: Services) -> None:
    with (
        splitformer_client.connect(*addresses(services)) as client,
        pytest.raises(InvalidArgumentError, match="num_return_sequences") as caught,
    ):
        client.translate(TEXT, "de", num_beams=2, num_return_sequences=3, top_k=5)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["options.top_k", "options.num_return_sequences"]


def run(services: Services, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPLITFORMER_ENCODER": services.encoder.address,
        "SPLITFORMER_DECODER": services.decoder.address,
    }
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode()


def test_the_command_writes_hypotheses_with_scores(services: Services) -> None:
    with splitformer_client.connect(*addresses(services)) as client:
        (found,) = client.translate(
            TEXT, "de", num_beams=4, num_return_sequences=3, max_new_tokens=12
        )
    expected = [
        f"de\t{h.score:.4f}\t{line}" for h in found.hypotheses for line in h.text.split("\n")
    ]
    assert run(services, *BEAM, TEXT).rstrip("\n").split("\n") == expected
    answer = json.loads(run(services, *BEAM, "--json", TEXT))["translations"]["de"]
    assert [h["text"] for h in answer["hypotheses"]] == [h.text for h in found.hypotheses]
    assert answer["text"] == found.text
