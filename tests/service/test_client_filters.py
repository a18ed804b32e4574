"""Sampling and filters through the client and the command, by the names that users know."""

from __future__ import annotations

import json
from typing import Any

import pytest

import splitformer_client
from tests.conftest import Services
from tests.service.test_client_beam import TEXT, addresses, run

CASES: list[dict[str, Any]] = [
    {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 7},
    {"repetition_penalty": 0.01},
    {"repetition_penalty": 0.01, "no_repeat_ngram_size": 2},
    {"target_prefix": "fox", "max_new_tokens": 5},
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_command_has_the_calls_options(services: Services, options: dict[str, Any]) -> None:
    options = {"max_new_tokens": 12, **options}
    with splitformer_client.connect(*addresses(services)) as client:
        (found,) = client.translate(TEXT, "de", **options)
        (plain,) = client.translate(TEXT, "de", max_new_tokens=12)
    given = [x for k, v in options.items() for x in (f"--{k.replace('_', '-')}", str(v))]
    answer = json.loads(run(services, "--json", *given, TEXT))["translations"]["de"]
    assert answer["text"] == found.prefix + found.text
    assert found.prefix + found.text != plain.text


def test_the_command_rules_out_words_and_tokens(services: Services) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "min_new_tokens": 9}
    with splitformer_client.connect(*addresses(services)) as client:
        (plain,) = client.translate(TEXT, "de", **options)
        texts = {each.text.strip(): each.id for each in plain.tokens[1:]}
        word = next(text for text in texts if len(text) > 1 and text.isalpha())
        token = plain.tokens[0].id
        ruled: dict[str, Any] = {"bad_words": [word, "~"], "suppressed_tokens": [token]}
        (found,) = client.translate(TEXT, "de", **options, **ruled)
        (early,) = client.translate(TEXT, "de", **options, num_beams=3, early_stopping=True)
    assert not {token, texts[word]} & {each.id for each in found.tokens}
    given = ["--json", "--max-new-tokens", "12", "--min-new-tokens", "9"]
    ruled_out = ["--bad-word", word, "--bad-word", "~", "--suppressed-token", str(token)]
    answer = json.loads(run(services, *given, *ruled_out, TEXT))["translations"]["de"]
    assert answer["text"] == found.text
    searched = run(services, *given, "--num-beams", "3", "--early-stopping", TEXT)
    assert json.loads(searched)["translations"]["de"]["text"] == early.text


def test_the_command_adds_biases(services: Services) -> None:
    with splitformer_client.connect(*addresses(services)) as client:
        (plain,) = client.translate(TEXT, "de", max_new_tokens=12)
        first = plain.tokens[0].id
        (found,) = client.translate(TEXT, "de", max_new_tokens=12, logit_bias={first: -99.0})
        (all_one,) = client.translate(TEXT, "de", max_new_tokens=5, logit_bias={first: 99.0})
    assert first not in [token.id for token in found.tokens]
    assert {token.id for token in all_one.tokens} == {first}
    given = ["--json", "--max-new-tokens", "12", "--no-break-loops", f"--logit-bias={first}=-99"]
    answer = json.loads(run(services, *given, TEXT))["translations"]["de"]
    assert answer["text"] == found.text


def test_it_stops_where_it_is_told(services: Services) -> None:
    with splitformer_client.connect(*addresses(services)) as client:
        (plain,) = client.translate(TEXT, "de", max_new_tokens=12)
    stop = plain.text[len(plain.text) // 2 :][:3]
    shown = run(services, "--json", "--max-new-tokens", "12", "--stop", "~", "--stop", stop, TEXT)
    answer = json.loads(shown)["translations"]["de"]
    assert answer["text"] == plain.text[: plain.text.index(stop)]
