"""Sound files and raw samples, decoded by libsndfile: one channel at one rate comes out.

https://python-soundfile.readthedocs.io, https://python-soxr.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile
import soxr

from splitformer.errors import InvalidArgumentError
from splitformer.model.audio.features import Samples
from splitformer.model.audio.feed import Feed

Encoding = Literal["wav", "flac", "pcm_s16le", "pcm_f32le"]

RATES = (4000, 192000)
"""Lowest and highest sample rate taken, in Hz."""

CHANNELS = 2
"""Most channels; two are mixed down to one."""

_BLOCK = 8192  # samples decoded at a time
_CONTAINERS = {"wav": ("WAV", "WAVEX", "RF64"), "flac": ("FLAC",)}
_SUBTYPES = {"pcm_s16le": ("PCM_16", 2), "pcm_f32le": ("FLOAT", 4)}  # and bytes per sample
_UNKNOWN_LENGTH = 2**31 - 2**16
"""Headers that promise as many samples or more were written before their length was known."""


@dataclass(frozen=True, slots=True)
class Form:
    """How bytes are to be read.

    Attributes:
        encoding: What they are.
        sample_rate: Samples per second, of raw encodings; 0 for files, which say it themselves.
        channels: Interleaved channels, of raw encodings; 0 for files.

    Raises:
        InvalidArgumentError: BAD_SAMPLE_RATE or BAD_CHANNELS.
    """

    encoding: Encoding
    sample_rate: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        if self.raw:
            check_rate("header.sample_rate", self.sample_rate)
            check_channels("header.channels", self.channels)
            return
        for name, reason in (("sample_rate", "BAD_SAMPLE_RATE"), ("channels", "BAD_CHANNELS")):
            if getattr(self, name):
                rule = f"must be 0: a {self.encoding.upper()} file says it itself"
                raise InvalidArgumentError.of(
                    f"header.{name}", rule, getattr(self, name), reason=reason
                )

    @property
    def raw(self) -> bool:
        """True if there is no header."""
        return self.encoding in _SUBTYPES

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels, of raw encodings."""
        return _SUBTYPES[self.encoding][1] * self.channels


class _Sound(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from front to back only."""

    def seekable(self) -> bool:
        return False


def blocks(feed: Feed, form: Form, rate: int) -> Iterator[Samples]:
    """Decode a feed, piece by piece, waiting for bytes where need be.

    Args:
        feed: Where the bytes come from.
        form: How to read them.
        rate: Samples per second wanted; others are resampled.

    Yields:
        Samples; what they add up to does not depend on how the bytes came.

    Raises:
        InvalidArgumentError: BAD_AUDIO, BAD_SAMPLE_RATE, BAD_CHANNELS or AUDIO_TRUNCATED.
    """
    with _opened(feed, form) as sound:
        feed.sequential()
        resampler = None
        if sound.samplerate != rate:
            resampler = soxr.ResampleStream(sound.samplerate, rate, 1, dtype="float32")
        for block in _decoded(sound, form):
            mono = block.mean(axis=1, dtype=np.float32)  # (samples, channels) -> (samples,)
            yield mono if resampler is None else resampler.resample_chunk(mono)
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
    if form.raw and feed.total % form.frame_bytes:
        _truncated(f"{feed.total} bytes, no multiple of {form.frame_bytes}")


def check_rate(field: str, rate: int) -> None:
    """InvalidArgumentError BAD_SAMPLE_RATE unless a rate is within `RATES`."""
    low, high = RATES
    if not low <= rate <= high:
        raise InvalidArgumentError.of(
            field, f"must be {low} to {high} Hz", rate, reason="BAD_SAMPLE_RATE"
        )


def check_channels(field: str, channels: int) -> None:
    """InvalidArgumentError BAD_CHANNELS unless there are one or two."""
    if not 1 <= channels <= CHANNELS:
        raise InvalidArgumentError.of(
            field, f"must be 1 to {CHANNELS}", channels, reason="BAD_CHANNELS"
        )


def _opened(feed: Feed, form: Form) -> _Sound:
    raw: dict[str, Any] = {}
    if form.raw:
        raw = {"samplerate": form.sample_rate, "channels": form.channels, "format": "RAW"}
        raw |= {"subtype": _SUBTYPES[form.encoding][0], "endian": "LITTLE"}
    try:
        sound = _Sound(feed, **raw)
    except soundfile.LibsndfileError as error:
        raise _bad(form, error.error_string) from error
    try:
        if not form.raw:
            _check_header(sound, form)
    except InvalidArgumentError:
        sound.close()
        raise
    return sound


def _check_header(sound: _Sound, form: Form) -> None:
    if sound.format not in _CONTAINERS[form.encoding]:
        raise _bad(form, f"is a {sound.format} file")
    check_rate("audio.sample_rate", sound.samplerate)
    check_channels("audio.channels", sound.channels)


def _decoded(sound: _Sound, form: Form) -> Iterator[Samples]:
    """Yield (samples, channels) up to the end that the header promises."""
    promised = sound.frames if 0 < sound.frames < _UNKNOWN_LENGTH else None
    count = 0
    while promised is None or count < promised:
        most = _BLOCK if promised is None else min(_BLOCK, promised - count)
        try:
            block: Samples = sound.read(most, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _bad(form, error.error_string) from error
        if not len(block):
            break
        if not np.isfinite(block).all():
            raise _bad(form, "holds infinities or NaNs")
        count += len(block)
        yield block
    if promised is not None and count < promised:
        _truncated(f"{count} of {promised} samples")


def _bad(form: Form, why: str) -> InvalidArgumentError:
    what = f"{form.encoding} samples" if form.raw else f"a sound {form.encoding.upper()} file"
    return InvalidArgumentError.of("audio", f"must be {what}", why, reason="BAD_AUDIO")


def _truncated(got: str) -> None:
    raise InvalidArgumentError.of("audio", "must be complete", got, reason="AUDIO_TRUNCATED")
