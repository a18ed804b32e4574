"""Greedy output and beams of one length equal CTranslate2's in float32, on shared weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from splitformer.generation import (
    GenerationOptions,
    Hypotheses,
    Target,
    Vocabulary,
    decoding_for,
    step,
)
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


@pytest.mark.skipif(not available(), reason=f"no native library: {reason()}")
@pytest.mark.parametrize("beams", [2, 5])
def test_hypotheses_of_one_length(model: Transformer, tmp_path: Path, beams: int) -> None:
    """Where all end at the same length the definitions agree; its early ends are others."""
    sources, count = torch.randint(4, VOCABULARY, (4, 12)), 12
    native = NativeDecoder(model.decoder, "fp32", threads=1)
    with torch.inference_mode():
        memories = model.encode(sources, torch.full((4,), 12))
    options = GenerationOptions(
        num_beams=beams, num_return_sequences=beams, min_new_tokens=count, max_new_tokens=count
    )
    vocabulary = Vocabulary(EOS, (EOS,), VOCABULARY)
    searches = [
        decoding_for(new_target(native.begin(memory)), options, count, vocabulary)
        for memory in memories
    ]
    while active := [search for search in searches if not search.finished]:
        assert not step(native, active, (EOS,))
    names = peer.token_names(VOCABULARY)
    converted = peer.convert(lambda: model, tmp_path, "fp32")
    results = ctranslate2.Translator(str(converted), compute_type="float32").translate_batch(
        [[names[i] for i in source] for source in sources.tolist()],
        beam_size=beams,
        num_hypotheses=beams,
        max_decoding_length=count,
        min_decoding_length=count,
        suppress_sequences=[[names[EOS]]],
        return_scores=True,
    )
    native.close()
    for row, search, result in zip(sources, searches, results, strict=True):
        found = next(event for event in search.news() if isinstance(event, Hypotheses))
        ids = [[token.id for token in each.tokens] for each in found]
        assert ids == [[names.index(token) for token in tokens] for tokens in result.hypotheses]
        with_end, without = scores(model, row, ids)
        assert [each.score for each in found] == pytest.approx(with_end, rel=1e-4)
        assert result.scores == pytest.approx(without, rel=1e-4)


@torch.inference_mode()
def scores(
    model: Transformer, source: torch.Tensor, hypotheses: list[list[int]]
) -> tuple[list[float], list[float]]:
    """Mean log-probabilities: the model's, as ours, and those among all tokens but the end.

    CTranslate2 rules tokens out before it normalises, so theirs are the latter.
    """
    count = len(hypotheses)
    targets = torch.tensor([[START, *ids] for ids in hypotheses])
    logits = model(source.expand(count, -1), torch.full((count,), 12), targets[:, :-1])
    means = []
    for _ in range(2):
        chosen = logits.log_softmax(-1).gather(-1, targets[:, 1:, None])
        means.append(chosen[..., 0].mean(-1).tolist())
        logits[..., EOS] = -torch.inf
    return means[0], means[1]


def new_target(state: Any) -> Target:
    return Target((START,), state, silent(), 48)


def silent() -> Any:
    """A detokenizer for ids without text."""
    return SimpleNamespace(add=lambda token: "", finish=lambda: "", fork=silent)
