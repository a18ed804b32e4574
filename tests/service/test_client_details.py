"""Target prefixes, alternatives and alignments through the client and the command."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from splitformer.errors import InvalidArgumentError
from splitformer_client import Client, Span, Token, Translation, aio, connect
from tests.conftest import Services, nothing_is_held
from tests.support.rpc import eventually

TEXT = "Où est le fichier ?"
COMMAND = [sys.executable, "-m", "splitformer_client", "translate", "--to", "de"]
FEW = {"max_new_tokens": 8}


@pytest.fixture
def client(services: Services) -> Iterator[Client]:
    with connect(services.encoder.address, services.decoder.address) as connected:
        yield connected
    eventually(lambda: nothing_is_held(services))


# --- prefixes -------------------------------------------------------------------------------------


def whole(client: Client, language: str) -> Translation:
    return client.translate(TEXT, language, **FEW)[0]  # type: ignore[arg-type]


def test_a_translation_goes_on_behind_its_prefix(client: Client) -> None:
    tokens = whole(client, "de").tokens
    ids = [token.id for token in tokens[:3]]
    (found,) = client.translate(TEXT, "de", target_prefix=ids, max_new_tokens=5)
    assert [token.id for token in found.tokens] == [token.id for token in tokens[3:]]
    assert [token.index for token in found.tokens] == list(range(5))
    assert found.prefix == "", "its text is not known here"


def test_a_prefix_may_be_text(client: Client) -> None:
    (found,) = client.translate(TEXT, "de", target_prefix="Die Datei", max_new_tokens=5)
    memory = client.encode(TEXT)
    with client.open_session(memory, language="de", target_prefix="Die Datei") as session:
        assert tuple(session.generate(max_new_tokens=5)) == found.tokens
    assert (found.prefix, found.source) == ("Die Datei", TEXT)
    assert list(client.stream(TEXT, "de", target_prefix="Die Datei", max_new_tokens=5)) == list(
        found.tokens
    )


def test_each_language_has_a_prefix_of_its_own(services: Services, client: Client) -> None:
    prefixes = {"de": [7, 8], "ja": [9]}

    async def both() -> list[Translation]:
        async with aio.connect(services.encoder.address, services.decoder.address) as other:
            return await other.translate(
                TEXT, ["de", "ja", "fr"], target_prefix=prefixes, max_new_tokens=4
            )

    for translation in asyncio.run(both()):
        prefix = prefixes.get(translation.language)
        alone = client.translate(TEXT, translation.language, target_prefix=prefix, max_new_tokens=4)
        assert alone[0].tokens == translation.tokens


def test_of_a_text_in_pieces_the_first_begins_with_it(client: Client) -> None:
    texts = [TEXT, "Open the file."]
    (found,) = client.translate("\n\n".join(texts), "de", target_prefix="Die", max_new_tokens=4)
    (first,) = client.translate(texts[0], "de", target_prefix="Die", max_new_tokens=4)
    (second,) = client.translate(texts[1], "de", max_new_tokens=4)
    assert found.text == f"{first.text}\n\n{second.text}"


@pytest.mark.parametrize("prefix", ["Die", {"fr": "Les"}])
def test_a_prefix_belongs_to_a_language_that_is_asked_for(client: Client, prefix: object) -> None:
    with pytest.raises(InvalidArgumentError, match="target_prefix: must be"):
        client.translate(TEXT, ["de", "ja"], target_prefix=prefix)  # type: ignore[arg-type]


def test_a_prefix_that_cannot_be_is_the_servers_to_refuse(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.translate(TEXT, "de", target_prefix=[2**20])
    assert caught.value.reason == "TOKEN_OUT_OF_RANGE"


# --- alternatives and alignments ------------------------------------------------------------------


def test_alternatives_come_with_tokens_and_change_none(client: Client) -> None:
    (plain,) = client.translate(TEXT, "de", **FEW)  # type: ignore[arg-type]
    (told,) = client.translate(TEXT, "de", alternatives=3, **FEW)  # type: ignore[arg-type]
    assert told.text == plain.text
    for token in told.tokens:
        assert [each.log_probability for each in token.alternatives] == sorted(
            (each.log_probability for each in token.alternatives), reverse=True
        )
        assert len(token.alternatives) == 3
        assert token.id not in [each.id for each in token.alternatives]


def spans_of(client: Client) -> list[tuple[int, int]]:
    """Bytes of the source that its rows stand for."""
    memory = client.encode(TEXT, delivery="inline")
    return [(each.begin, each.end) for each in memory.header.source_tokens]


def assert_placed(tokens: tuple[Token, ...], spans: list[tuple[int, int]]) -> None:
    """Tokens say which bytes and characters of the source they align with."""
    assert any(token.aligned_spans for token in tokens)
    for token in tokens:
        places = [spans[row] for row in token.aligned_source]
        assert [(each.byte_begin, each.byte_end) for each in token.aligned_spans] == places
        for span in token.aligned_spans:
            raw = TEXT.encode()[span.byte_begin : span.byte_end]
            assert span.of(TEXT) == raw.decode()


def test_tokens_say_what_they_align_with(client: Client) -> None:
    spans = spans_of(client)
    (found,) = client.translate(TEXT, "de", alignments=True, **FEW)  # type: ignore[arg-type]
    assert_placed(found.tokens, spans)
    memory = client.encode(TEXT)
    with client.open_session(memory, language="de") as session:
        assert tuple(session.generate(alignments=True, **FEW)) == found.tokens  # type: ignore[arg-type]
    with client.open_session(memory, language="de") as session, session.fork() as fork:
        assert fork.step(0, alignments=True) == found.tokens[0]
        with session.interact(alignments=True, max_new_tokens=1) as loop:
            assert next(iter(loop)) == found.tokens[0]
    decoded = client.decode(memory, language="de", alignments=True, **FEW)  # type: ignore[arg-type]
    assert tuple(decoded) == found.tokens


def test_words_that_belong_together_are_words_of_both_texts(client: Client) -> None:
    (found,) = client.translate(TEXT, "de", alignments=True, **FEW)  # type: ignore[arg-type]
    assert found.alignments
    for pair in found.alignments:
        for span, text in ((pair.source, TEXT), (pair.target, found.text)):
            assert isinstance(span, Span)
            assert span.of(text) == span.of(text).strip() != ""
            assert text.encode()[span.byte_begin : span.byte_end].decode() == span.of(text)
    (plain,) = client.translate(TEXT, "de", **FEW)  # type: ignore[arg-type]
    assert plain.alignments == ()


def test_in_a_text_of_several_pieces_places_are_those_of_the_whole(client: Client) -> None:
    text = f"\n {TEXT}\n\n{TEXT}"
    (one,) = client.translate(TEXT, "de", alignments=True, **FEW)  # type: ignore[arg-type]
    (both,) = client.translate(text, "de", alignments=True, **FEW)  # type: ignore[arg-type]
    begins = text.index(TEXT), text.rindex(TEXT)
    for begin, tokens in zip(begins, (both.tokens[:8], both.tokens[8:]), strict=True):
        raw = len(text[:begin].encode())
        place = Span(begin, begin + len(TEXT), raw, raw + len(TEXT.encode()))
        for found, token in zip(tokens, one.tokens, strict=True):
            assert found.aligned_spans == tuple(each.behind(place) for each in token.aligned_spans)


def test_of_ids_no_text_is_known(client: Client) -> None:
    memory = client.encode([5, 6, 7, 1])
    assert memory.text == ""
    with client.open_session(memory, language="de") as session:
        token = session.step(0, alignments=True)
    assert isinstance(token, Token)
    assert token.aligned_source
    assert token.aligned_spans == ()


# --- the command ----------------------------------------------------------------------------------


def run(services: Services, *arguments: str) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPLITFORMER_ENCODER": services.encoder.address,
        "SPLITFORMER_DECODER": services.decoder.address,
    }
    arguments = (*arguments, "--max-new-tokens", "8", TEXT)
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode()


def test_the_command_shows_a_prefix_with_the_rest(services: Services, client: Client) -> None:
    (found,) = client.translate(TEXT, "de", target_prefix="Die Datei", **FEW)  # type: ignore[arg-type]
    expected = "".join(f"de\t{line}\n" for line in f"Die Datei{found.text}".split("\n"))
    assert run(services, "--prefix", "Die Datei") == expected
    answer = json.loads(run(services, "--prefix", "Die Datei", "--json"))
    assert answer["translations"]["de"]["text"] == f"Die Datei{found.text}"


def test_the_command_writes_alternatives(services: Services, client: Client) -> None:
    (found,) = client.translate(TEXT, "de", alternatives=2, **FEW)  # type: ignore[arg-type]
    lines = run(services, "--alternatives", "2").removesuffix("\n").split("\n")
    told = [line.split("\t") for line in lines if line.startswith("de\ttoken\t")]
    assert [len(fields) for fields in told] == [8] * 8
    assert [float(fields[3]) for fields in told] == pytest.approx(
        [token.log_probability for token in found.tokens], abs=1e-4
    )
    answer = json.loads(run(services, "--alternatives", "2", "--json"))["translations"]["de"]
    assert [each["text"] for each in answer["alternatives"]] == [t.text for t in found.tokens]
    assert [len(each["others"]) for each in answer["alternatives"]] == [2] * 8


def test_the_command_writes_words_that_align(services: Services, client: Client) -> None:
    (found,) = client.translate(TEXT, "de", target_prefix="Die", alignments=True, max_new_tokens=8)
    pairs = [(each.source.of(TEXT), each.target.of(found.text)) for each in found.alignments]
    out = run(services, "--alignments", "--prefix", "Die")
    lines = [line.split("\t") for line in out.removesuffix("\n").split("\n")]
    assert [tuple(line[2:]) for line in lines if line[1:2] == ["aligned"]] == pairs
    out = run(services, "--alignments", "--prefix", "Die", "--json")
    answer = json.loads(out)["translations"]["de"]
    for each, (source, target) in zip(answer["alignments"], pairs, strict=True):
        for word, text, place in ((source, TEXT, "source"), (target, answer["text"], "target")):
            assert each[place]["text"] == word
            assert text[each[place]["begin"] : each[place]["end"]] == word
