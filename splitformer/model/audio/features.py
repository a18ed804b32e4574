"""Log-mel features of a window of samples, as Whisper was trained on them (Radford et al. 2022).

The definition is that of Hugging Face Transformers' `WhisperFeatureExtractor`, which the tests
compare with. Everything is computed in float64 and rounded once at the end, so that a window's
features do not depend on how many threads or which library multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from splitformer.errors import ConfigurationError

Samples = NDArray[np.float32]
"""One channel, (samples,), between -1 and 1."""

_FLOOR = 1e-10
_RANGE = 8.0  # decades below the loudest
_SLANEY_LINEAR_HZ = 200.0 / 3  # Hz per mel below 1 kHz
_SLANEY_LOG_STEP = np.log(6.4) / 27.0  # above it
_SLANEY_BREAK_HZ = 1000.0
_TOP_HZ = 8000.0


@dataclass(frozen=True, eq=False)
class LogMel:
    """Turns windows of samples into features.

    Attributes:
        bins: Mel bins.
        sample_rate: Samples per second.
        window_seconds: Length of a window.
        hop: Samples from one frame to the next.
        frame: Samples of a frame.

    Raises:
        ConfigurationError: A value breaks its rule.
    """

    bins: int = 80
    sample_rate: int = 16000
    window_seconds: int = 30
    hop: int = 160
    frame: int = 400

    def __post_init__(self) -> None:
        for name in ("bins", "sample_rate", "window_seconds", "hop", "frame"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ConfigurationError(
                    f"features.{name}: must be a positive integer, got {value!r}"
                )
        if self.window_samples % self.hop or self.window_samples <= self.frame:
            raise ConfigurationError(
                f"features.hop: must divide a window ({self.window_samples} samples), which must be"
                f" longer than a frame ({self.frame}), got {self.hop}"
            )

    @classmethod
    def from_preprocessor(cls, values: Mapping[str, Any]) -> LogMel:
        """Read parsed preprocessor_config.json.

        Raises:
            ConfigurationError: A value breaks its rule, or asks for what is not offered.
        """
        for name, offered in (("dither", 0.0), ("do_normalize", False), ("padding_value", 0.0)):
            if values.get(name, offered) != offered:
                raise ConfigurationError(f"{name}: must be {offered}, got {values[name]!r}")
        return cls(
            bins=values.get("feature_size", 80),
            sample_rate=values.get("sampling_rate", 16000),
            window_seconds=values.get("chunk_length", 30),
            hop=values.get("hop_length", 160),
            frame=values.get("n_fft", 400),
        )

    @property
    def window_samples(self) -> int:
        """Samples of a window."""
        return self.window_seconds * self.sample_rate

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.window_samples // self.hop

    def __call__(self, samples: Samples) -> Samples:
        """Compute a window's features.

        Args:
            samples: At most a window; a shorter one is filled up with silence.

        Returns:
            (frames, bins), float32: logarithms to base 10, at most 8 below the largest, mapped to
            about -1 to 1.
        """
        padded = np.zeros(self.window_samples)
        padded[: len(samples)] = samples
        edge = self.frame // 2
        frames = sliding_window_view(np.pad(padded, edge, mode="reflect"), self.frame)[:: self.hop]
        spectrum = np.fft.rfft(frames[: self.frames] * self._hann)  # (frames, frequencies)
        power = spectrum.real**2 + spectrum.imag**2
        logs = np.log10(np.maximum(power @ self.filters, _FLOOR))  # (frames, bins)
        levels: Samples = ((np.maximum(logs, logs.max() - _RANGE) + 4.0) / 4.0).astype(np.float32)
        return levels

    @cached_property
    def filters(self) -> NDArray[np.float64]:
        """Slaney's triangular filters of equal area, (frequencies, bins)."""
        frequencies = np.linspace(0.0, self.sample_rate / 2, self.frame // 2 + 1)
        edges = _hertz(np.linspace(0.0, _mels(_TOP_HZ), self.bins + 2))
        widths = np.diff(edges)
        slopes = edges - frequencies[:, None]  # (frequencies, bins + 2)
        rising, falling = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
        triangles = np.maximum(0.0, np.minimum(rising, falling))
        areas: NDArray[np.float64] = triangles * (2.0 / (edges[2:] - edges[:-2]))
        return areas

    @cached_property
    def _hann(self) -> NDArray[np.float64]:
        """The periodic Hann window, (frame,)."""
        return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / self.frame)


def _mels(hertz: float) -> float:
    """Slaney's scale (Auditory Toolbox, 1998) at a frequency of 1 kHz or more."""
    linear = _SLANEY_BREAK_HZ / _SLANEY_LINEAR_HZ
    return float(linear + np.log(hertz / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undo Slaney's scale: linear up to 1 kHz, logarithmic above."""
    above = mels - _SLANEY_BREAK_HZ / _SLANEY_LINEAR_HZ
    logarithmic = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * np.maximum(above, 0.0))
    return np.where(above > 0, logarithmic, mels * _SLANEY_LINEAR_HZ)
