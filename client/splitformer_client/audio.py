"""Audio as callers have it: a file, bytes, samples, or chunks that are still coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from splitformer.errors import InvalidArgumentError
from splitformer.v1 import encoder_service_pb2 as pb

AudioEncoding = Literal["wav", "flac", "pcm_s16le", "pcm_f32le"]
Audio = str | Path | bytes | BinaryIO | AsyncIterable[bytes] | NDArray[np.float32]
"""Path of a file, what is in one, an open one, chunks of one, or samples between -1 and 1."""

CHUNK_BYTES = 128 * 2**10

_ENCODINGS: dict[str, pb.AudioEncoding.ValueType] = {
    "wav": pb.AUDIO_ENCODING_WAV,
    "flac": pb.AUDIO_ENCODING_FLAC,
    "pcm_s16le": pb.AUDIO_ENCODING_PCM_S16LE,
    "pcm_f32le": pb.AUDIO_ENCODING_PCM_F32LE,
}
_BEGINNINGS: dict[bytes, AudioEncoding] = {b"RIFF": "wav", b"RF64": "wav", b"fLaC": "flac"}


@dataclass(frozen=True, slots=True)
class AudioForm:
    """How audio is to be read.

    Attributes:
        encoding: Empty: as the first bytes say, "wav" or "flac".
        sample_rate: Samples per second, of raw encodings and samples.
        channels: Interleaved channels, of raw encodings.
    """

    encoding: AudioEncoding | Literal[""] = ""
    sample_rate: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        if self.encoding and self.encoding not in _ENCODINGS:
            known = ", ".join(_ENCODINGS)
            raise InvalidArgumentError.of("encoding", f"must be one of {known}", self.encoding)

    def header(self, beginning: bytes, model: str) -> pb.AudioHeader:
        """Write it as the protocol's message.

        Raises:
            InvalidArgumentError: BAD_ENCODING, there is no telling what the bytes are.
        """
        encoding = self.encoding or _BEGINNINGS.get(beginning[:4], "")
        if not encoding:
            rule = "must be given unless the audio is a WAV or FLAC file"
            raise InvalidArgumentError.of("encoding", rule, beginning[:4], reason="BAD_ENCODING")
        return pb.AudioHeader(
            model=model,
            encoding=_ENCODINGS[encoding],
            sample_rate=self.sample_rate,
            channels=self.channels,
        )


def form_of(audio: Audio, form: AudioForm) -> AudioForm:
    """Return how audio is to be read; samples say most of it themselves.

    Raises:
        InvalidArgumentError: Samples that are not (samples,) or (samples, channels).
    """
    if not isinstance(audio, np.ndarray):
        return form
    if audio.ndim not in (1, 2):
        rule = "must have one axis, or two if there are several channels"
        raise InvalidArgumentError.of("audio", rule, audio.shape)
    return AudioForm("pcm_f32le", form.sample_rate, 1 if audio.ndim == 1 else audio.shape[1])


async def chunks_of(audio: Audio) -> AsyncGenerator[bytes]:
    """Yield the bytes of audio in chunks of at most `CHUNK_BYTES`; OSError if a file fails."""
    if isinstance(audio, (str, Path)):
        with open(audio, "rb") as file:  # noqa: ASYNC230 (opening a file of one's own is quick)
            async for chunk in _read(file):
                yield chunk
    elif isinstance(audio, np.ndarray):
        async for chunk in chunks_of(np.ascontiguousarray(audio, "<f4").tobytes()):
            yield chunk
    elif isinstance(audio, (bytes, bytearray, memoryview)):
        for i in range(0, len(audio), CHUNK_BYTES):
            yield bytes(audio[i : i + CHUNK_BYTES])
    elif isinstance(audio, AsyncIterable):
        async for piece in audio:
            async for chunk in chunks_of(bytes(piece)):
                yield chunk
    else:
        async for chunk in _read(audio):
            yield chunk


async def _read(file: BinaryIO) -> AsyncGenerator[bytes]:
    """Read a file that may be a pipe, without holding up the event loop."""
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield chunk
