"""The embedded pronunciation model through both services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import splitformer_client
import splitformer_models
from splitformer.errors import InvalidArgumentError
from splitformer_client import Client
from tests.support.servers import ServerThread

MODEL = "en-g2p"


@pytest.fixture(scope="module")
def client(server_loop: asyncio.AbstractEventLoop) -> Iterator[Client]:
    thread = ServerThread(server_loop)
    folder = splitformer_models.model_path(MODEL)
    encoder = thread.start_encoder(folder)
    decoder = thread.start_decoder(folder, encoder)
    with splitformer_client.connect(encoder.address, decoder.address, timeout=120) as made:
        yield made
    thread.close()


def pronounce(client: Client, word: str) -> str:
    (found,) = client.translate(word, "arpabet")
    return found.text


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [("pen", "P EH N"), ("street", "S T R IY T"), ("king", "K IH NG"), ("black", "B L AE K")],
)
def test_plain_words(client: Client, word: str, phonemes: str) -> None:
    assert pronounce(client, word) == phonemes


def test_case_and_accents_do_not_matter(client: Client) -> None:
    assert pronounce(client, "CAFÉ") == pronounce(client, "cafe")
    assert pronounce(client, " Pen\n") == "P EH N"


@pytest.mark.parametrize("text", ["two words", "Zürich 2", "ペン", "😀", "pen\0", "{name}", "%s"])
def test_what_is_no_word_is_refused(client: Client, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=r"source.text: must consist of") as caught:
        client.translate(text, "arpabet")
    assert caught.value.reason == "UNKNOWN_CHARACTER"


def test_no_word_is_without_end(client: Client) -> None:
    assert len(pronounce(client, "a" * 60).split()) <= 64
    with pytest.raises(InvalidArgumentError) as caught:
        client.translate("a" * 10_000, "arpabet")
    assert caught.value.reason == "SOURCE_TOO_LONG"


def test_a_target_prefix_is_phonemes(client: Client) -> None:
    (found,) = client.translate("read", "arpabet", target_prefix="R IY")
    assert found.text.split()[-1:] == ["D"]
    with pytest.raises(InvalidArgumentError, match=r"^target_prefix.text: must consist of AA AE"):
        client.translate("read", "arpabet", target_prefix="xyz")
    with pytest.raises(InvalidArgumentError, match=r"^target.text: must consist of AA AE"):
        client.score("read", ["R IY D", "xyz"], "arpabet")


def test_terms_and_bad_words_are_phonemes(client: Client) -> None:
    (found,) = client.translate("pen", "arpabet", glossary={"pen": "B AE G"})
    assert found.text == "B AE G"
    (found,) = client.translate("pen", "arpabet", bad_words=["EH", "P IH", "no phonemes"])
    assert "EH" not in found.text.split()
    assert "P IH" not in found.text
    with pytest.raises(InvalidArgumentError, match=r"glossary\[0\].target: must be text that"):
        client.translate("pen", "arpabet", glossary={"pen": "bag"})


def test_it_is_small() -> None:
    folder = splitformer_models.model_path(MODEL)
    assert 1e6 < sum(file.stat().st_size for file in folder.iterdir()) < 2e6
