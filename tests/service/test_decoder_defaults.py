"""Options that a model's folder sets for requests that leave them open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.defaults import Defaults
from splitformer.serving.inspecting import facts
from splitformer_client import Client, connect
from tests.support.servers import ServerThread

SUGGESTED = {"no_repeat_ngram_size": 3, "num_beams": 4, "min_length": 5}
TEXT = "Open the file, then close the file."


def folder_with(tiny_model: Path, place: Path, **suggested: Any) -> Path:
    """Copy a model and add what its folder suggests."""
    folder = shutil.copytree(tiny_model, place / "model")
    (folder / "generation_config.json").write_text(json.dumps(suggested))
    return folder


@pytest.mark.parametrize(
    ("suggested", "defaults"),
    [
        (SUGGESTED, Defaults(3)),
        ({"repetition_penalty": 1.2, "length_penalty": 2.0}, Defaults(0, 1.2)),
        ({"no_repeat_ngram_size": None, "repetition_penalty": None}, Defaults()),
    ],
)
def test_what_is_taken_over(
    tiny_model: Path, tmp_path: Path, suggested: dict[str, Any], defaults: Defaults
) -> None:
    checkpoint = Checkpoint(folder_with(tiny_model, tmp_path, **suggested))
    assert checkpoint.defaults == defaults
    assert Checkpoint(tiny_model).defaults == Defaults()


def test_inspect_says_what_holds_and_what_does_not(tiny_model: Path, tmp_path: Path) -> None:
    found = dict(facts(Checkpoint(folder_with(tiny_model, tmp_path, **SUGGESTED))))
    assert found["defaults"].startswith("no_repeat_ngram_size 3 (unless")
    assert found["suggests"].startswith("num_beams 4, min_length 5 (callers")
    assert "defaults" not in dict(facts(Checkpoint(tiny_model)))


@pytest.mark.parametrize(
    ("suggested", "wrong"),
    [
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size: must be at least 0, got -1"),
        ({"no_repeat_ngram_size": 2.5}, "no_repeat_ngram_size: must be an integer, got 2.5"),
        ({"repetition_penalty": 0}, "repetition_penalty: must be above 0, got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(
    tiny_model: Path, tmp_path: Path, suggested: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ConfigurationError, match=wrong):
        Checkpoint(folder_with(tiny_model, tmp_path, **suggested))


def tokens(client: Client, **options: Any) -> list[int]:
    """Return what a session generates."""
    with client.open_session(client.encode(TEXT), language="de") as session:
        return [token.id for token in session.generate(max_new_tokens=40, **options)]


def test_requests_that_say_nothing_get_them(
    tiny_model: Path, tmp_path: Path, servers: ServerThread
) -> None:
    both = {"no_repeat_ngram_size": 1, "repetition_penalty": 1.5}
    off = {"no_repeat_ngram_size": 0, "repetition_penalty": 1.0}
    folder = folder_with(tiny_model, tmp_path, **both)
    plain, given = ((servers.start_encoder(each), each) for each in (tiny_model, folder))
    clients = [
        connect(encoder.address, servers.start_decoder(each, encoder).address)
        for encoder, each in (plain, given)
    ]
    with clients[0] as without, clients[1] as having:
        assert having.decoder_info().generation_defaults == both
        assert without.decoder_info().generation_defaults == {}
        ids = tokens(having)
        assert len(set(ids)) == len(ids)
        assert ids == tokens(without, **both) != tokens(without)
        assert tokens(having, **off) == tokens(without)
        one = tokens(having, no_repeat_ngram_size=0)
        assert one == tokens(without, repetition_penalty=1.5) != ids
        beams = {"num_beams": 3}
        assert tokens(having, **beams) == tokens(without, **both, **beams)
        assert tokens(having, mode="parallel") == tokens(without, mode="parallel")
        with having.open_session(having.encode(TEXT), language="de") as session:
            steps = [session.step(i) for i in range(5)]
            assert [step.id for step in steps if hasattr(step, "id")] == ids[:5]
