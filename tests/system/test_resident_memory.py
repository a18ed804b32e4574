"""Each service holds the weights of its half, and no copy of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from splitformer import native
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.inspecting import halves, weight_bytes
from tests.parity.test_marian import PAD, make_folder

MIB = 2**20
PROGRAM = """
import gc, json, sys
from pathlib import Path
import psutil
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.kernels import Arithmetic, give_back, source_encoder, step_decoder
half, precision, folder = sys.argv[1:]
own = psutil.Process()
checkpoint = Checkpoint(Path(folder))
checkpoint.fingerprint
before = own.memory_info().rss
if half == "encoder":
    loaded = source_encoder(checkpoint.load_encoder(), Arithmetic(precision))
else:
    loaded = step_decoder(checkpoint.load_decoder(), Arithmetic(precision))
gc.collect()
give_back()
print(json.dumps([before, own.memory_info().rss]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose decoder is eight times its encoder."""
    folder = tmp_path_factory.mktemp("memory") / "opus-mt-deep"
    sizes = make_folder(folder)
    config = MarianConfig(
        **sizes,
        d_model=512,
        encoder_layers=1,
        decoder_layers=6,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
        max_position_embeddings=64,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=0,
        forced_eos_token_id=0,
    )
    torch.manual_seed(0)
    MarianMTModel(config).save_pretrained(folder)
    return folder


def growth(half: str, precision: str, folder: Path) -> float:
    """Resident MiB that loading and packing a half adds to a process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, half, precision, str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    before, after = json.loads(done.stdout)
    return float(after - before) / MIB


@pytest.mark.skipif(not native.available(), reason=f"native: {native.reason()}")
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_process_grows_by_the_weights_of_its_half(folder: Path, half: str) -> None:
    expected = weight_bytes(halves(Checkpoint(folder))[half], "int8") / MIB
    assert expected < growth(half, "int8", folder) < expected + 24
