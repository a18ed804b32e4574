"""The embedded model on text it was not made for: sensible output or a refusal, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import splitformer_client
import splitformer_models
from splitformer.errors import InvalidArgumentError
from splitformer_client import Client, EndReason, Translation
from tests.support.servers import ServerThread

LANGUAGES = ("ja", "de", "fr", "es", "zh_CN")
NEVER = {0, 2, 3, 4, 5, 6, 7}
"""Padding, unknown and the languages: no text, though text may look like them."""
POSITIONS = 256
"""Longest source and longest output of the model, in tokens."""


@pytest.fixture(scope="module")
def client(server_loop: asyncio.AbstractEventLoop) -> Iterator[Client]:
    thread = ServerThread(server_loop)
    folder = splitformer_models.model_path()
    encoder = thread.start_encoder(folder)
    decoder = thread.start_decoder(folder, encoder)
    with splitformer_client.connect(encoder.address, decoder.address, timeout=120) as made:
        yield made
    thread.close()


def check(found: Translation) -> None:
    """It ended, within the model's positions, in valid text without control tokens."""
    assert found.end.reason in (EndReason.EOS, EndReason.LENGTH)
    assert len(found.tokens) <= POSITIONS
    assert NEVER.isdisjoint(token.id for token in found.tokens)
    found.text.encode()  # no lone surrogates


@pytest.mark.parametrize(
    "text",
    [
        "Die Katze sitzt auf dem Dach und schläft.",
        "これは日本語の文章です。",
        "Это предложение на русском языке.",
        "هذه جملة باللغة العربية",
        "ᚠᛇᚻ᛫ᛒᛦᚦ 𓀀𓁐 𝔉𝔯𝔞𝔨𝔱𝔲𝔯",
        "🎉🔥👍🏽👨‍👩‍👧‍👦",
        "a\x00b\x01\x07\x1b[31mc\x7f\u200b\u202e\ufeff",
        "%s %d {name} <b></b> ${x}",
        "Z̸̡̛a̵l̶g̷o̸" * 5,
        "!?" * 60,
        "<de> </s> <pad> open <ja>",
        "ab" * 100,
    ],
)
def test_strange_text_is_translated_to_something_that_ends(client: Client, text: str) -> None:
    for found in client.translate(text, LANGUAGES):
        check(found)


@pytest.mark.parametrize("text", ["", " ", "\n\t\u3000\n"])
def test_nothing_is_refused(client: Client, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="must hold more than white space") as caught:
        client.translate(text, "de")
    assert caught.value.reason == "EMPTY_SOURCE"


def test_ten_thousand_characters_of_sentences_are_cut_into_them(client: Client) -> None:
    text = "Open the file and close the window. " * 280  # 10,080 characters
    (found,) = client.translate(text, "de", max_new_tokens=12)
    assert 280 * 5 <= len(found.tokens) <= 280 * 12
    with pytest.raises(InvalidArgumentError, match="256") as caught:
        client.translate(text, "de", long_text="refuse")
    assert caught.value.reason == "SOURCE_TOO_LONG"


def test_ten_thousand_characters_without_an_end_are_refused_or_cut(client: Client) -> None:
    try:
        (found,) = client.translate("x" * 10_000, "de", max_new_tokens=8)
    except InvalidArgumentError as error:
        assert error.reason == "SOURCE_TOO_LONG"  # noqa: PT017 (either is fine)
    else:
        assert found.tokens


def test_the_embedded_model_knows_what_a_pen_is(client: Client) -> None:
    texts = {found.language: found.text for found in client.translate("This is a pen.", LANGUAGES)}
    assert all(texts.values()), texts
    deleting = client.translate("Do you want to delete the selected files?", ["de", "fr"])
    assert [found.text.split()[0] for found in deleting] == ["Möchten", "Voulez-vous"]


def test_placeholders_can_be_terms(client: Client) -> None:
    placeholders = ("%s", "%1", "{name}", "$x")
    text = 'Could not save "%s" (%1) of {name} to $x.'
    glossary = {placeholder: placeholder for placeholder in placeholders}
    for found in client.translate(text, LANGUAGES, glossary=glossary):
        assert all(placeholder in found.text for placeholder in placeholders), found.text
