"""`splitformer inspect` and `splitformer verify` on folders of published families."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from splitformer.model.half import StoredHalf
from splitformer.model.shapes import decoder_shapes, weight_bytes
from splitformer.model.torch_encoder import TorchEncoder
from splitformer.serving.comparing_text import SENTENCES
from splitformer_client.main import app
from tests.parity.test_marian import make_pair
from tests.support.pairs import Pair
from tests.support.whisper import make_whisper

WEIGHTS = "model.safetensors"
QUERY = "model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("inspect") / "opus-mt-en-ROMANCE"
    return make_pair(folder, (">>fra<<", ">>ron<<"), positions=200)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from more, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def rows(result: Result) -> dict[str, str]:
    pairs = [line.partition("  ") for line in result.stdout.splitlines()]
    return {name.strip(): value.strip() for name, _, value in pairs}


def test_what_a_supported_folder_is(pair: Pair) -> None:
    result = run("inspect", str(pair.folder))
    found = rows(result)
    assert result.exit_code == 0, result.output
    assert found["supported"] == "yes"
    assert found["family"] == "marian"
    assert found["fingerprint"] == pair.checkpoint.fingerprint
    assert found["targets"] == "fra, ron; bound to the memory"
    assert found["layers"] == "3 + 2"
    assert found["stored as"] == "1 file(s), F32"
    encoder = sum(p.numel() for p in pair.ours.encoder.parameters())
    assert found["encoder"] == f"{encoder / 1e6:,.1f} M parameters"


def test_what_the_embedded_kind_of_folder_is(tiny_model: Path) -> None:
    found = rows(run("inspect", str(tiny_model)))
    assert found["family"] == "splitformer"
    assert found["targets"] == "ja, de, fr, es, zh_CN; chosen on the decoder's side"


@pytest.mark.parametrize(("precision", "each"), [("fp32", 4), ("int8", 1)])
def test_weight_bytes_are_those_of_the_parts(pair: Pair, precision: str, each: int) -> None:
    tied = pair.ours.decoder
    config = pair.checkpoint.description.architecture
    matrices = sum(
        part.weight.numel() for part in tied.modules() if isinstance(part, torch.nn.Linear)
    )
    table = config.target_vocabulary_size * config.d_model
    assert matrices > table, "the output projection is among them"
    small = sum(p.numel() for p in tied.parameters() if p.dim() == 1)
    assert weight_bytes(decoder_shapes(config), precision) == matrices * each + small * 4


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda t: t.pop(QUERY), "missing tensor"),
        (lambda t: t[QUERY].fill_(float("nan")), "must hold finite numbers only"),
    ],
)
def test_a_damaged_folder_gets_a_reason(
    pair: Pair, tmp_path: Path, damage: Any, reason: str
) -> None:
    folder = Path(shutil.copytree(pair.folder, tmp_path / "copy"))
    tensors = load_file(folder / WEIGHTS)
    damage(tensors)
    save_file(tensors, folder / WEIGHTS)
    result = run("inspect", str(folder))
    assert result.exit_code == 1
    assert rows(result)["supported"].startswith("no: ")
    assert reason in result.stdout


def test_no_folder_at_all(tmp_path: Path) -> None:
    result = run("inspect", str(tmp_path / "nowhere"))
    assert result.exit_code == 1
    assert "config.json: cannot be read" in result.stdout


def test_a_folder_that_is_the_same(pair: Pair) -> None:
    result = run("verify", str(pair.folder), "--target-language", "fra")
    assert result.exit_code == 0, result.output
    all_of_them = f"{len(SENTENCES)} of {len(SENTENCES)} the same"
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"fp32 tokens of sources {all_of_them}" in lines
    assert f"fp32 greedy outputs {all_of_them}" in lines
    assert lines[-1] == "the same: yes, up to rounding in fp32"


@pytest.mark.parametrize("multilingual", [True, False])
def test_a_model_of_speech_that_is_the_same(tmp_path: Path, multilingual: bool) -> None:
    folder = make_whisper(tmp_path / "whisper", multilingual=multilingual)
    language = ("--target-language", "de") if multilingual else ()
    result = run("verify", str(folder), *language)
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "fp32 greedy outputs 20 of 20 the same" in lines
    assert lines[-1] == "the same: yes, up to rounding in fp32"


def test_a_difference_in_speech_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_whisper(tmp_path / "whisper")
    encode = TorchEncoder.encode
    monkeypatch.setattr(
        "splitformer.serving.comparing.source_encoder",
        lambda checkpoint, arithmetic: SimpleNamespace(
            encode=lambda sources: [
                1.5 * memory for memory in encode(TorchEncoder(checkpoint.load_encoder()), sources)
            ],
            close=lambda: None,
        ),
    )
    result = run("verify", str(folder))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "the same: no"


def test_a_difference_is_noticed(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    array = StoredHalf.array

    def changed(self: StoredHalf, name: str) -> Any:
        return array(self, name) * (1.5 if name == "layers.0.feed_forward.inner.weight" else 1)

    monkeypatch.setattr(StoredHalf, "array", changed)
    result = run("verify", str(pair.folder), "--target-language", "fra")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "the same: no"


def test_what_cannot_be_compared_gets_a_reason(pair: Pair, tiny_model: Path) -> None:
    result = run("verify", str(pair.folder), "--target-language", "xx")
    assert result.exit_code == 1
    assert "error: target_language: must be one of fra, ron, got 'xx'" in result.stderr
    result = run("verify", str(tiny_model))
    assert result.exit_code == 1
    assert "has nothing to compare text of family 'splitformer' with" in result.stderr
