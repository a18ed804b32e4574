"""Audio of one caller on its way in: bytes up, and a memory down for each window asked for."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from splitformer.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    SplitformerError,
)
from splitformer.model.audio.features import LogMel
from splitformer.model.audio.sound import Form
from splitformer.model.audio.track import Track, Window
from splitformer.v1 import encoder_service_pb2 as pb

_WANTED_BYTES = 512 * 2**10
"""What is asked for at a time."""

_PAUSE_SECONDS = 0.5

Encode = Callable[[Window], Awaitable[pb.AudioWindow]]

_FORMS = {
    pb.AUDIO_ENCODING_WAV: "wav",
    pb.AUDIO_ENCODING_FLAC: "flac",
    pb.AUDIO_ENCODING_PCM_S16LE: "pcm_s16le",
    pb.AUDIO_ENCODING_PCM_F32LE: "pcm_f32le",
}


def form_of(header: pb.AudioHeader) -> Form:
    """Read how an audio's bytes are to be read.

    Raises:
        InvalidArgumentError: BAD_ENCODING, BAD_SAMPLE_RATE or BAD_CHANNELS.
    """
    if header.encoding not in _FORMS:
        names = ", ".join(map(pb.AudioEncoding.Name, _FORMS))
        raise InvalidArgumentError.of(
            "header.encoding", f"must be one of {names}", header.encoding, reason="BAD_ENCODING"
        )
    return Form(_FORMS[header.encoding], header.sample_rate, header.channels)  # type: ignore[arg-type]


class AudioStream:
    """One EncodeAudio, behind its header.

    Nothing is encoded that nobody asked for, and what a window lacks is asked for: so a caller who
    sends what is asked for can have an audio of any length, and takes the room of a few windows.

    Args:
        form: How the bytes are to be read.
        features: What the model takes in.
        encode: Encodes a window and keeps its memory.
        idle_seconds: Longest time in which nothing comes while something is waited for.
    """

    def __init__(self, form: Form, features: LogMel, encode: Encode, idle_seconds: float) -> None:
        self._features, self._encode, self._idle_seconds = features, encode, idle_seconds
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._track = Track(form, features.sample_rate, features.window_samples, self._notify)
        self._sought = self._ended = False
        self._owed = 0  # bytes that were asked for and have not come

    async def run(
        self, requests: AsyncIterator[pb.EncodeAudioRequest]
    ) -> AsyncGenerator[pb.EncodeAudioResponse]:
        """Give the answers; leaving early lets go of everything.

        Raises:
            InvalidArgumentError: The audio is bad, or BAD_SEEK, or MALFORMED_REQUEST.
            ResourceExhaustedError: AUDIO_TOO_FAR_AHEAD.
            DeadlineExceededError: AUDIO_STALLED.
            SplitformerError: What `encode` raises, except that a queue or a store may be full for a
                while.
        """
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._changed.set())
        try:
            while True:
                self._changed.clear()
                if reader.done():
                    await reader
                if answer := await self._answer():
                    yield answer
                elif reader.done() and not self._sought:
                    return
                else:
                    await self._wait()
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            await asyncio.to_thread(self._track.close)

    async def _answer(self) -> pb.EncodeAudioResponse | None:
        """The window that was asked for, a request for audio, or nothing yet."""
        window = self._track.window() if self._sought else None
        if window is not None:
            encoded = await self._patiently(window)
            self._sought = False
            return pb.EncodeAudioResponse(window=encoded)
        if self._sought and self._track.starved and not self._ended and self._owed <= 0:
            self._owed = _WANTED_BYTES
            return pb.EncodeAudioResponse(wanted=pb.AudioWanted(bytes=self._owed))
        return None

    async def _patiently(self, window: Window) -> pb.AudioWindow:
        while True:
            try:
                return await self._encode(window)
            except SplitformerError as error:
                if error.reason not in ("QUEUE_FULL", "OVER_BUDGET") or error.retry_after is None:
                    raise
                await asyncio.sleep(min(error.retry_after, _PAUSE_SECONDS))

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), self._idle_seconds)
        except TimeoutError:
            raise DeadlineExceededError(
                f"audio: nothing has come for {self._idle_seconds:g} s", reason="AUDIO_STALLED"
            ) from None

    def _notify(self) -> None:
        """Called on the decoding thread."""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and so is whoever waits
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _read(self, requests: AsyncIterator[pb.EncodeAudioRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("part"):
                case "chunk" if not self._ended:
                    self._owed -= len(request.chunk)
                    self._track.feed(request.chunk)
                case "seek":
                    self._seek(request.seek.start_seconds)
                case "end":
                    self._end()
                case part:
                    rule = "must be a seek, an end, or a chunk before that"
                    raise InvalidArgumentError.of("part", rule, part, reason="MALFORMED_REQUEST")
            self._changed.set()
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._track.end()

    def _seek(self, seconds: float) -> None:
        if self._sought:
            rule = "must wait for the answer to the last one"
        elif not (math.isfinite(seconds) and seconds >= 0):
            rule = "must be a finite number of at least 0"
        else:
            self._track.seek(round(seconds * self._features.sample_rate))
            self._sought = True
            return
        raise InvalidArgumentError.of("seek.start_seconds", rule, seconds, reason="BAD_SEEK")
