"""Quantised weights and fingerprints that are kept: the same bits, never of another model."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from splitformer.model import kept
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.kept import FOLDER, Kept, QuantisedHalf
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.native import FloatArray, InstructionSet
from tests.support.native import instruction_sets, needs_native

pytestmark = needs_native

WEIGHTS = "model.safetensors"
SOURCE = [[5, 9, 30, 7, 1]]
KILLED = """
import os, signal, sys
from pathlib import Path
from splitformer.model import kept
from splitformer.model.checkpoint import Checkpoint
pieces, seen = kept._pieces, []
def dying(weight):
    yield from pieces(weight)
    seen.append(weight)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
kept._pieces = dying
folder = Path(sys.argv[1])
Checkpoint(folder, kept.Kept.of(folder, "auto")).half("decoder", "int8")
"""


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model", ignore=lambda *_: [FOLDER]))


def opened(folder: Path, choice: str = "auto") -> Checkpoint:
    return Checkpoint(folder, Kept.of(folder, choice))


def logits(checkpoint: Checkpoint, isa: InstructionSet | None = None) -> FloatArray:
    """What both halves make of a source, in int8: logits of one step."""
    encoder = NativeEncoder(checkpoint.half("encoder", "int8"), "int8", 1, isa=isa)
    decoder = NativeDecoder(checkpoint.half("decoder", "int8"), "int8", 1, isa=isa)
    memory = encoder.encode(SOURCE)[0]
    result: FloatArray = decoder.step([[4, 8]], [decoder.begin(memory)]).copy()
    encoder.close()
    decoder.close()
    return result


def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything fail that a start does not have to do again."""

    def fail(*_: object) -> None:
        pytest.fail("was done again")

    monkeypatch.setattr(kept, "quantised", fail)
    monkeypatch.setattr(Checkpoint, "check_values", fail)
    monkeypatch.setattr(Checkpoint, "_computed_fingerprint", fail)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_kept_gives_the_same_bits(folder: Path, dtype: torch.dtype) -> None:
    stored = {name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(stored, folder / WEIGHTS)
    fresh = logits(opened(folder, "off"))
    assert not (folder / FOLDER).exists()
    for isa in instruction_sets():
        for _ in range(2):  # written, then read
            assert np.array_equal(logits(opened(folder), isa), fresh)


def test_the_next_start_does_nothing_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(folder)
    expected = logits(first)
    no_work(monkeypatch)
    second = opened(folder)
    assert second.fingerprint == first.fingerprint
    assert np.array_equal(logits(second), expected)


def test_a_process_that_is_killed_while_it_writes_leaves_nothing_that_counts(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = (folder / FOLDER).glob(".decoder*")
    assert left.stat().st_size > 0
    assert not list((folder / FOLDER).glob("decoder*"))
    assert np.array_equal(logits(opened(folder)), logits(opened(folder, "off")))
    assert sorted(path.name for path in (folder / FOLDER).iterdir()) == [
        "decoder-int8.safetensors",
        "encoder-int8.safetensors",
        "fingerprint.json",
    ]


def test_a_changed_source_is_noticed_though_size_and_time_are_the_same(folder: Path) -> None:
    before = opened(folder)
    old = logits(before)
    path = folder / WEIGHTS
    state = path.stat()
    tensors = load_file(path)
    tensors["decoder.output.weight"].mul_(-1)
    save_file(tensors, path)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size
    after = opened(folder)
    assert after.fingerprint != before.fingerprint
    assert not np.array_equal(logits(after), old)
    assert np.array_equal(logits(after), logits(opened(folder, "off")))


def test_changed_settings_are_noticed(folder: Path) -> None:
    before = opened(folder).fingerprint
    config = folder / "config.json"
    values = json.loads(config.read_text())
    values["architecture"]["max_positions"] -= 1
    config.write_text(json.dumps(values))
    after = opened(folder).fingerprint
    assert after == opened(folder, "off").fingerprint != before


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def no_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 100)


def of_other_shapes(path: Path) -> None:
    save_file({"norm.weight": torch.ones(3)}, path)


@pytest.mark.parametrize("damage", [cut_off, empty, no_header, of_other_shapes])
def test_damaged_files_are_made_again(folder: Path, damage: Callable[[Path], None]) -> None:
    expected = logits(opened(folder))
    files = sorted((folder / FOLDER).iterdir())
    whole = [path.stat().st_size for path in files]
    for path in files:
        damage(path)
    assert np.array_equal(logits(opened(folder)), expected)
    assert [path.stat().st_size for path in files] == whole


def test_files_of_another_version_are_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = logits(opened(folder))
    monkeypatch.setattr(kept, "VERSION", "next")
    assert np.array_equal(logits(opened(folder)), expected)
    no_work(monkeypatch)
    assert np.array_equal(logits(opened(folder)), expected)


def test_where_a_folder_cannot_be_written_to_the_users_cache_serves(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / FOLDER).write_bytes(b"in the way")
    expected = logits(opened(folder))
    (found,) = (tmp_path / "cache").rglob("decoder-int8.safetensors")
    assert found.stat().st_size > 0
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_bytes(b"in the way too")
    assert np.array_equal(logits(opened(folder)), expected)


def test_a_folder_of_ones_own_is_shared_by_models(
    folder: Path, other_model: Path, tmp_path: Path
) -> None:
    choice = str(tmp_path / "kept")
    expected = [logits(opened(path, "off")) for path in (folder, other_model)]
    for _ in range(2):
        found = [logits(opened(path, choice)) for path in (folder, other_model)]
        assert all(map(np.array_equal, found, expected))
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert isinstance(opened(folder, choice).half("encoder", "int8"), QuantisedHalf)
    assert not isinstance(opened(folder, choice).half("encoder", "fp32"), QuantisedHalf)
