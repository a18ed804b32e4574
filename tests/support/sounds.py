"""Sounds for tests: a few tones and noise, the same every time, as samples and as bytes."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from splitformer.model.audio.features import Samples

RATE = 16000


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> Samples:
    """A tone that changes ten times a second, under noise, at half of full scale."""
    rng = np.random.default_rng(seed)
    count = round(seconds * rate)
    tones = np.repeat(rng.uniform(100, 3000, count // (rate // 10) + 1), rate // 10)[:count]
    wave = 0.4 * np.sin(2 * np.pi * np.cumsum(tones) / rate)
    return (wave + 0.05 * rng.standard_normal(count)).astype(np.float32)


def file_of(
    samples: Samples, kind: str = "WAV", subtype: str = "PCM_16", rate: int = RATE
) -> bytes:
    """Write samples, (n,) or (n, channels), as a file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def read(data: bytes) -> Samples:
    """Read the first channel of a file as libsndfile has it, all at once."""
    samples: Samples = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)[0][:, 0]
    return samples
