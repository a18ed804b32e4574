"""Whisper against Hugging Face Transformers, on small random configurations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from splitformer import native
from splitformer.model.audio.features import LogMel, Samples
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.encoding import Features, SourceEncoder, TorchEncoder
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import Asked, StepDecoder, TorchDecoder
from tests.support.sounds import RATE, sound
from tests.support.whisper import make_whisper, reference

KERNELS = [
    "torch",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(not native.available(), reason=f"native: {native.reason()}"),
    ),
]


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.01, 3.7, 30, 31])
def test_features_are_the_reference_s(bins: int, seconds: float) -> None:
    theirs = WhisperFeatureExtractor(feature_size=bins)
    samples = sound(seconds)[: 30 * RATE]
    expected = theirs(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    ours = LogMel(bins)(samples)
    assert ours.shape == (3000, bins)
    # The reference computes in float32; its own two implementations differ by as much.
    assert np.allclose(ours, expected.T, atol=2e-4)
    padded = np.pad(samples, (0, 30 * RATE - len(samples)))
    exact = theirs._np_extract_fbank_features(padded[None], "cpu")[0]
    assert np.allclose(ours, exact.T, atol=1e-6)


def test_filters_are_the_reference_s() -> None:
    for bins in (80, 128):
        theirs = WhisperFeatureExtractor(feature_size=bins)
        assert np.allclose(LogMel(bins).filters, theirs.mel_filters, atol=1e-12)


class Pair:
    """One folder, opened by both."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.theirs: WhisperForConditionalGeneration = reference(folder)
        self.ours = Checkpoint(folder)
        speech = self.ours.description.speech
        assert speech is not None
        self.speech = speech

    def features(self, samples: Samples) -> Features:
        return Features(self.speech.features(samples))

    def encoder(self, kernel: str) -> SourceEncoder:
        weights = self.ours.load_encoder()
        return TorchEncoder(weights) if kernel == "torch" else NativeEncoder(weights, "fp32", 2)

    def decoder(self, kernel: str) -> StepDecoder:
        weights = self.ours.load_decoder()
        return TorchDecoder(weights) if kernel == "torch" else NativeDecoder(weights, "fp32", 2)


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"multilingual": False, "bins": 128, "whole_tokenizer": True, "dtype": torch.float16},
    ],
    ids=["multilingual", "english"],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("whisper") / "tiny-whisper"
    return Pair(make_whisper(folder, **request.param))


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
def test_encoder_output(pair: Pair, kernel: str) -> None:
    encoder = pair.encoder(kernel)
    sources = [pair.features(sound(seconds, seed)) for seed, seconds in enumerate((1, 0.3, 0.02))]
    memories = encoder.encode(sources)
    for source, memory in zip(sources, memories, strict=True):
        features = torch.from_numpy(source.values.T.copy())[None]
        expected = pair.theirs.model.encoder(features).last_hidden_state[0]
        assert len(memory) == len(source)
        assert np.allclose(memory, expected.numpy(), atol=2e-5)
        assert np.array_equal(memory, encoder.encode([source])[0]), "alone, the same bits"
    encoder.close()


@torch.inference_mode()
@pytest.mark.parametrize("kernel", KERNELS)
def test_step_logits(pair: Pair, kernel: str) -> None:
    memory = pair.encoder("torch").encode([pair.features(sound(1))])[0]
    torch.manual_seed(5)
    target = torch.randint(0, pair.theirs.config.vocab_size, (1, 30))
    expected = pair.theirs(
        encoder_outputs=(torch.from_numpy(memory)[None],), decoder_input_ids=target
    ).logits[0]
    decoder = pair.decoder(kernel)
    state = decoder.begin(torch.from_numpy(memory))
    for position, token in enumerate(target[0].tolist()):
        answer = decoder.advance([[token]], [state], asked=Asked(logits={0}))
        assert torch.allclose(answer.logits[0], expected[position], atol=2e-4)
    decoder.close()


def test_tokenizer(pair: Pair) -> None:
    theirs = WhisperTokenizer.from_pretrained(pair.folder)
    tokenizer = pair.ours.tokenizer
    for text in (" Open the file.", "größer ¿qué? 打开 🎧 \n\t x", "<|en|> is text", "", " "):
        ids = tokenizer.encode_target(text)
        if "<|" not in text:
            assert ids == theirs(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        detokenizer = tokenizer.detokenizer()
        assert "".join(map(detokenizer.add, ids)) + detokenizer.finish() == text
    every = list(range(pair.theirs.config.vocab_size))
    ours = "".join(tokenizer.decode([token]) for token in every if token < 256)
    assert ours == "".join(
        theirs.decode([token], skip_special_tokens=True) for token in every if token < 256
    )
    assert not tokenizer.decode([token for token in every if token >= pair.ours.description.eos_id])
