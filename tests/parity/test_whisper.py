"""Whisper against Hugging Face Transformers, on small random configurations."""

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor

from splitformer.model.audio.features import LogMel
from tests.support.sounds import RATE, sound


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.01, 3.7, 30, 31])
def test_features_are_the_reference_s(bins: int, seconds: float) -> None:
    reference = WhisperFeatureExtractor(feature_size=bins)
    samples = sound(seconds)[: 30 * RATE]
    expected = reference(samples, sampling_rate=RATE, return_tensors="np")["input_features"][0]
    ours = LogMel(bins)(samples)
    assert ours.shape == (3000, bins)
    # The reference computes in float32; its own two implementations differ by as much.
    assert np.allclose(ours, expected.T, atol=2e-4)
    padded = np.pad(samples, (0, 30 * RATE - len(samples)))
    exact = reference._np_extract_fbank_features(padded[None], "cpu")[0]
    assert np.allclose(ours, exact.T, atol=1e-6)


def test_filters_are_the_reference_s() -> None:
    for bins in (80, 128):
        reference = WhisperFeatureExtractor(feature_size=bins)
        assert np.allclose(LogMel(bins).filters, reference.mel_filters, atol=1e-12)
