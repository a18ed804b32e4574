"""One audio on its way to the encoder service: which window it encodes is said from here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from splitformer.errors import DataLossError
from splitformer.v1 import encoder_service_pb2 as pb
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from splitformer_client.audio import Audio, AudioForm, chunks_of, form_of
from splitformer_client.link import Link
from splitformer_client.memory import Memory
from splitformer_client.scope import Scope


@dataclass(frozen=True, slots=True)
class Window:
    """An encoded piece of an audio.

    Attributes:
        start: Where it starts, in seconds.
        duration: How much audio it holds, in seconds.
        last: True if the audio ends within it.
        memory: What the encoder made of it, by reference.
    """

    start: float
    duration: float
    last: bool
    memory: Memory

    @property
    def end(self) -> float:
        """Where its audio ends, in seconds."""
        return self.start + self.duration


class Listening:
    """One EncodeAudio. As much audio is sent as the service asks for; use `listening`.

    Args:
        link: The encoder service.
        chunks: The audio, header not among it.
        header: How to read it.
        scope: The operation this is part of.
    """

    def __init__(
        self, link: Link, chunks: AsyncIterator[bytes], header: pb.AudioHeader, scope: Scope
    ) -> None:
        self._chunks = chunks
        self._outgoing: asyncio.Queue[pb.EncodeAudioRequest | None] = asyncio.Queue()
        self._outgoing.put_nowait(pb.EncodeAudioRequest(header=header))
        method = EncoderServiceStub(link.channel).EncodeAudio
        self._incoming = link.exchange(method, self._requests(), scope)

    async def window(self, start: float) -> Window:
        """Have the window that starts here encoded; not before the last one.

        Raises:
            InvalidArgumentError: The audio is bad: BAD_AUDIO, AUDIO_TRUNCATED, EMPTY_AUDIO,
                BAD_SAMPLE_RATE or BAD_CHANNELS.
            DataLossError: STREAM_TRUNCATED.
        """
        self._outgoing.put_nowait(pb.EncodeAudioRequest(seek=pb.AudioSeek(start_seconds=start)))
        async for message in self._incoming:
            if message.HasField("wanted"):
                await self._send(message.wanted.bytes)
            else:
                window = message.window
                memory = Memory(window.reference.header, reference=window.reference)
                return Window(window.start_seconds, window.duration_seconds, window.last, memory)
        raise DataLossError("audio: ended without a window", reason="STREAM_TRUNCATED")

    def close(self) -> None:
        """Stop; does nothing once the stream has ended."""
        self._outgoing.put_nowait(None)
        self._incoming.cancel()

    async def _send(self, count: int) -> None:
        """Send about so many bytes, or that there are no more."""
        while count > 0:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                self._outgoing.put_nowait(pb.EncodeAudioRequest(end=pb.AudioEnd()))
                return
            self._outgoing.put_nowait(pb.EncodeAudioRequest(chunk=chunk))
            count -= len(chunk)

    async def _requests(self) -> AsyncIterator[pb.EncodeAudioRequest]:
        while (request := await self._outgoing.get()) is not None:
            yield request


@contextlib.asynccontextmanager
async def listening(
    link: Link, audio: Audio, form: AudioForm, model: str, scope: Scope
) -> AsyncGenerator[Listening]:
    """Open a stream for an audio; leaving ends it."""
    chunks = chunks_of(audio)
    async with contextlib.aclosing(chunks):
        first = await anext(chunks, b"")
        header = form_of(audio, form).header(first, model)
        stream = Listening(link, _after(first, chunks), header, scope)
        try:
            yield stream
        finally:
            stream.close()


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    if first:
        yield first
    async for chunk in rest:
        yield chunk
