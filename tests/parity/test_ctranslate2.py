"""Greedy output equals CTranslate2's in float32, on shared random weights."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from splitformer.model import Transformer
from splitformer.model.native_decoder import NativeDecoder
from splitformer.native import available, reason
from tests.support.checkpoints import tiny_config

ctranslate2 = pytest.importorskip("ctranslate2", reason="a peer, installed by `make dev`")
peer = importlib.import_module("benchmarks.peers.ctranslate2_model")  # it needs ctranslate2

VOCABULARY, START, EOS, STEPS = 400, 3, 1, 24


@pytest.fixture(scope="module", params=["post", "pre"])
def model(request: pytest.FixtureRequest) -> Transformer:
    torch.manual_seed(5)
    config = tiny_config(VOCABULARY, norm=request.param, activation="silu", d_model=64)
    model = Transformer(config).eval()
    with torch.no_grad():
        # Turned round, the last norm keeps tied weights from only echoing the last token.
        last = "norm" if request.param == "pre" else "layers.1.feed_forward_residual.norm"
        model.decoder.get_parameter(f"{last}.weight").neg_()
    return model


def their_greedy(model: Transformer, folder: Path, sources: list[list[int]]) -> list[list[int]]:
    names = peer.token_names(VOCABULARY)
    converted = peer.convert(lambda: model, folder, "fp32")
    translator = ctranslate2.Translator(str(converted), compute_type="float32")
    results = translator.translate_batch(
        [[names[i] for i in source] for source in sources],
        beam_size=1,
        max_decoding_length=STEPS,
        min_decoding_length=STEPS,
        suppress_sequences=[[names[EOS]]],
    )
    return [[names.index(token) for token in result.hypotheses[0]] for result in results]


@pytest.mark.skipif(not available(), reason=f"no native library: {reason()}")
def test_greedy_output(model: Transformer, tmp_path: Path) -> None:
    sources = torch.randint(4, VOCABULARY, (5, 12))
    native = NativeDecoder(model.decoder, "fp32", threads=1)
    with torch.inference_mode():
        memories = model.encode(sources, torch.full((5,), 12))
        states = [native.begin(memory) for memory in memories]
    tokens, ours = [[START]] * 5, []
    for _ in range(STEPS):
        ids = native.advance(tokens, states, never=(EOS,)).ids
        tokens = [[token] for token in ids]
        ours.append(ids)
    theirs = their_greedy(model, tmp_path, sources.tolist())
    assert [list(row) for row in zip(*ours, strict=True)] == theirs
    assert len({token for row in theirs for token in row}) > 6, "repetition would prove little"
    native.close()
