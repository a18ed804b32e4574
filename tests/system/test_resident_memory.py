"""Each service holds the weights of its half, at no time more, and less than one that has both."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import MarianConfig, MarianMTModel

from splitformer.model.checkpoint import Checkpoint
from splitformer.model.shapes import weight_bytes
from splitformer.serving.inspecting import halves
from tests.parity.test_marian import PAD, make_folder
from tests.support.native import needs_native

MIB = 2**20
PROGRAM = """
import gc, json, re, sys
from pathlib import Path
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.arithmetic import Arithmetic
from splitformer.serving.kernels import give_back, source_encoder, step_decoder
halves, precision, folder = sys.argv[1:]
def memory(kind):
    text = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(kind + r":\\s+(\\d+)", text)[1])
checkpoint = Checkpoint(Path(folder))
checkpoint.fingerprint
before, load = memory("VmRSS"), {"encoder": source_encoder, "decoder": step_decoder}
loaded = [load[half](checkpoint, Arithmetic(precision)) for half in halves.split("+")]
gc.collect()
give_back()
print(json.dumps([before, memory("VmRSS"), memory("VmHWM")]))
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


def memory(halves: str, folder: Path) -> tuple[float, float, float]:
    """MiB that a process has before it loads halves and afterwards, and the most it ever had."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, halves, "int8", str(folder)],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    before, after, peak = (float(size) / MIB for size in json.loads(done.stdout))
    return before, after, peak


@needs_native
@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_process_grows_by_the_weights_of_its_half(folder: Path, half: str) -> None:
    expected = weight_bytes(halves(Checkpoint(folder))[half], "int8") / MIB
    before, after, peak = memory(half, folder)
    assert expected < after - before < expected + 12
    assert peak - before < expected + 24, "what is stored is not held as a whole meanwhile"


@needs_native
def test_each_half_takes_less_than_one_process_with_both(folder: Path) -> None:
    _, _, both = memory("encoder+decoder", folder)
    for half in ("encoder", "decoder"):
        _, _, alone = memory(half, folder)
        assert alone < both
