"""Where the native library computes, services do everything without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from splitformer.model.checkpoint import Checkpoint
from tests.parity.test_marian import make_pair
from tests.support.native import needs_native
from tests.support.whisper import make_whisper

ROOT = Path(__file__).parents[2]
HIDE = """
import sys
sys.modules["torch"] = None  # whoever imports it fails
"""
START = """
from pathlib import Path
import numpy as np
from splitformer_client import connect
from tests.support.servers import ServerThread
thread = ServerThread()
native = {"kernels": "native", "precision": "int8", "models": sys.argv[1], "admin": "127.0.0.1:0"}
encoder = thread.start_encoder(Path(sys.argv[2]), **native)
decoder = thread.start_decoder(Path(sys.argv[2]), encoder, **native)
client = connect(encoder.address, decoder.address)
"""
TEXT = """
drawn = {"temperature": 0.8, "seed": 3}
for options in (
    {},
    {"repetition_penalty": 0.7, "no_repeat_ngram_size": 2, "suppressed_tokens": (9,)},
    {"num_beams": 3, "num_return_sequences": 2},
    {"glossary": {"cat": "Katze"}, "num_beams": 2},
    drawn,
    {"top_k": 5, "top_p": 0.9, "min_p": 0.1, **drawn},
    {"top_k": 200, **drawn},
    {"alternatives": 3, "attention": True, "alignments": True},
    {"draft": "copy"},
    {"draft": "jacobi"},
    {"mode": "parallel"},
):
    (found,) = client.translate("the cat sat on the mat", to="de", max_new_tokens=12, **options)
    assert found, options
client.score("the cat sat", ["die Katze"], to="de")
client.embed("the cat sat")
"""
SPEECH = """
samples = (0.4 * np.sin(np.arange(16000) / 3)).astype(np.float32)
for timestamps in (True, False):
    found = client.transcribe(samples, sample_rate=16000, timestamps=timestamps, max_new_tokens=8)
assert found.language
"""
END = """
client.close()
thread.close()
"""


LOAD = """
from pathlib import Path
from splitformer.errors import ConfigurationError
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.arithmetic import Arithmetic
from splitformer.serving.kernels import step_decoder
try:
    step_decoder(Checkpoint(Path(sys.argv[1])), Arithmetic(kernels=sys.argv[2], device=sys.argv[3]))
except ConfigurationError as error:
    print(error)
"""
ABSENT = (
    "which is not installed here: `pip install splitformer[torch]`, or an image built with torch"
)


def serve(folder: Path, program: str) -> None:
    """Run both services over a model, in a process in which torch cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE + START + program + END, str(folder.parent), str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@needs_native
def test_text_in_every_way_of_decoding(tiny_model: Path) -> None:
    serve(tiny_model, TEXT)


@needs_native
def test_speech(tmp_path: Path) -> None:
    serve(make_whisper(tmp_path / "tiny-whisper"), SPEECH)


def load(folder: Path, kernels: str = "auto", device: str = "cpu", native: str = "") -> str:
    """What loading a decoder says in a process in which torch cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-c", HIDE + LOAD, str(folder), kernels, device],
        cwd=ROOT,
        env={**os.environ, "SPLITFORMER_NATIVE": native} if native else None,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_takes_torch_says_so(tiny_model: Path) -> None:
    asked = load(tiny_model, kernels="torch")
    assert asked == f"kernels: torch is to compute (settings ask for torch), {ABSENT}"
    assert load(tiny_model, device="cuda") == f"device: 'cuda' needs torch, {ABSENT}"
    assert load(tiny_model, native="off") == (
        f"kernels: torch is to compute (SPLITFORMER_NATIVE is off), {ABSENT}"
    )


@needs_native
def test_pickled_tensors_take_torch_once(tmp_path: Path) -> None:
    pair = make_pair(tmp_path / "opus-mt-xx-yy")
    torch.save(pair.theirs.state_dict(), pair.folder / "pytorch_model.bin")
    (pair.folder / "model.safetensors").unlink()
    assert load(pair.folder) == (
        "pytorch_model.bin: reading pickled tensors, once, needs torch, which is not installed"
        " here: run `splitformer inspect` on the folder where splitformer[torch] is"
    )
    Checkpoint(pair.folder)
    assert load(pair.folder) == ""
