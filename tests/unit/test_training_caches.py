"""Keys and values in 16 bits beside 32: a tiny model decoded with both, and what is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitformer.model.saving import save_checkpoint
from tests.support.tiny_training import TEXTS, tiny_tokenizer, tiny_transformer
from training.caches import Halves, compare, lines
from training.corpus import Example
from training.export import describe
from training.recipe import LANGUAGES, Genre
from training.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pieces = tiny_tokenizer(folder / "tokenizer.model")
    out, model = folder / "out", tiny_transformer(len(Tokenizer(pieces))).eval()
    save_checkpoint(out, model, describe(model, "tiny"), pieces)
    return out


def test_translations_do_not_depend_on_what_is_beside_them(folder: Path) -> None:
    halves = Halves(folder, threads=1)
    texts = ["Open", *TEXTS, "x" * 30]
    together = halves.translate(halves.memories(texts), "de", "f16")
    alone = [halves.translate(halves.memories([text]), "de", "f16")[0] for text in texts]
    halves.close()
    assert together == alone


def test_what_is_compared_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"f16": ["Open", "file"], "f32": ["Open", "window"]}
    monkeypatch.setattr(Halves, "translate", lambda _, memories, *args: said[args[1]])
    examples = [
        Example(text, "gimp", Genre.INTERFACE, dict.fromkeys(LANGUAGES, text))
        for text in ("Open", "window")
    ]
    found = compare(folder, examples)
    assert found["de"]["strings"] == 2
    assert found["de"]["differing"] == 1
    assert found["de"]["chrf"]["f32"] == 100.0
    assert found["de"]["chrf"]["f16"] == found["de"]["chrf_to_f32"] < 100.0
    assert "caches.de.differing 1 of 2" in set(lines(found))
