"""The client for code without asyncio: the asynchronous one behind plain calls."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self, Unpack

from splitformer.wire import FloatArray
from splitformer_client import aio
from splitformer_client.audio import Audio, AudioEncoding
from splitformer_client.bulk import AsyncEncoding, Encoded
from splitformer_client.encoder import Delivery, Pooling
from splitformer_client.memory import Memory
from splitformer_client.options import GenerationOptions, TargetPrefix
from splitformer_client.portal import Portal, Stream
from splitformer_client.session import AsyncGeneration
from splitformer_client.settings import Tls
from splitformer_client.sync_session import Generation, Session
from splitformer_client.transcription import Heard, Task
from splitformer_client.translation import Event, LongText
from splitformer_client.values import ModelInfo, Score, Token, Transcript, Translation

__all__ = ["Client", "Encoding", "Generation", "Session", "Stream", "connect"]


def connect(
    encoder: str | None = None,
    decoder: str | None = None,
    *,
    model: str = "",
    tls: Tls | bool | None = None,
    timeout: float = 30.0,
    allowed_endpoint_suffixes: Sequence[str] = (),
) -> Client:
    """Make a client; arguments as in `splitformer_client.aio.connect`."""
    return Client(
        aio.connect(
            encoder,
            decoder,
            model=model,
            tls=tls,
            timeout=timeout,
            allowed_endpoint_suffixes=allowed_endpoint_suffixes,
        )
    )


class Encoding(Stream[Encoded]):
    """What became of many sources, as `AsyncEncoding`."""

    def __init__(self, portal: Portal, encoding: AsyncEncoding) -> None:
        super().__init__(portal, encoding)
        self._encoding = encoding

    @property
    def sent(self) -> int:
        """Sources sent so far."""
        return self._encoding.sent

    @property
    def done(self) -> int:
        """Sources answered so far, those that failed included."""
        return self._encoding.done

    @property
    def failed(self) -> int:
        """Sources that failed so far."""
        return self._encoding.failed


class Client:
    """Both services in one object, for any number of threads.

    Every method does what the one of `AsyncClient` with the same name does, and raises the same.

    Args:
        client: What does the work; the new object owns it.
    """

    def __init__(self, client: aio.AsyncClient) -> None:
        self._client = client
        self._portal = Portal()
        self._finalizer = weakref.finalize(self, Portal.close, self._portal)

    def translate(
        self,
        text: str,
        to: str | Sequence[str],
        *,
        source_language: str = "",
        long_text: LongText = "split",
        target_prefix: TargetPrefix | Mapping[str, TargetPrefix] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Translation]:
        """Translate a text; one translation per language, in the order of `to`."""
        return self._portal.run(
            self._client.translate(
                text,
                to,
                source_language=source_language,
                long_text=long_text,
                target_prefix=target_prefix,
                timeout=timeout,
                **options,
            )
        )

    def translate_stream(
        self,
        text: str,
        to: str | Sequence[str],
        *,
        source_language: str = "",
        long_text: LongText = "split",
        target_prefix: TargetPrefix | Mapping[str, TargetPrefix] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream[Event]:
        """Translate, giving (language, token) as they come, then (language, end) for each."""
        events = self._client.translate_stream(
            text,
            to,
            source_language=source_language,
            long_text=long_text,
            target_prefix=target_prefix,
            timeout=timeout,
            **options,
        )
        return Stream(self._portal, events)

    def stream(
        self,
        text: str,
        to: str,
        *,
        source_language: str = "",
        long_text: LongText = "split",
        target_prefix: TargetPrefix | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream[Token]:
        """Translate into one language, giving the tokens as they come."""
        tokens = self._client.stream(
            text,
            to,
            source_language=source_language,
            long_text=long_text,
            target_prefix=target_prefix,
            timeout=timeout,
            **options,
        )
        return Stream(self._portal, tokens)

    def score(
        self,
        text: str,
        targets: Sequence[str | Sequence[int]],
        to: str,
        *,
        source_language: str = "",
        include_end: bool = True,
        timeout: float | None = None,
    ) -> list[Score]:
        """Say how probable given translations of a text are, in the order of `targets`."""
        return self._portal.run(
            self._client.score(
                text,
                targets,
                to,
                source_language=source_language,
                include_end=include_end,
                timeout=timeout,
            )
        )

    def transcribe(
        self,
        audio: Audio,
        *,
        language: str = "",
        task: Task = "transcribe",
        timestamps: bool = True,
        encoding: AudioEncoding | Literal[""] = "",
        sample_rate: int = 0,
        channels: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Transcript:
        """Write down what is said in an audio, of any length."""
        return self._portal.run(
            self._client.transcribe(
                audio,
                language=language,
                task=task,
                timestamps=timestamps,
                encoding=encoding,
                sample_rate=sample_rate,
                channels=channels,
                timeout=timeout,
                **options,
            )
        )

    def transcribe_stream(
        self,
        audio: Audio,
        *,
        language: str = "",
        task: Task = "transcribe",
        timestamps: bool = True,
        encoding: AudioEncoding | Literal[""] = "",
        sample_rate: int = 0,
        channels: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Stream[Heard]:
        """Transcribe, giving tokens as they come, and segments once their texts are certain."""
        events = self._client.transcribe_stream(
            audio,
            language=language,
            task=task,
            timestamps=timestamps,
            encoding=encoding,
            sample_rate=sample_rate,
            channels=channels,
            timeout=timeout,
            **options,
        )
        return Stream(self._portal, events)

    def encode(
        self,
        source: str | Sequence[int],
        *,
        delivery: Delivery = "auto",
        source_language: str = "",
        target_language: str = "",
        lease: float = 0.0,
        timeout: float | None = None,
    ) -> Memory:
        """Encode a source, text or token ids."""
        return self._portal.run(
            self._client.encode(
                source,
                delivery=delivery,
                source_language=source_language,
                target_language=target_language,
                lease=lease,
                timeout=timeout,
            )
        )

    def encode_many(
        self,
        sources: Iterable[str | Sequence[int]],
        *,
        delivery: Delivery = "auto",
        source_language: str = "",
        target_language: str = "",
        lease: float = 0.0,
        in_flight: int = 256,
        timeout: float = math.inf,
    ) -> Encoding:
        """Encode many sources on one stream; an iterator of them is read on the client's thread."""

        async def start() -> AsyncEncoding:
            return self._client.encode_many(
                sources,
                delivery=delivery,
                source_language=source_language,
                target_language=target_language,
                lease=lease,
                in_flight=in_flight,
                timeout=timeout,
            )

        return Encoding(self._portal, self._portal.run(start()))

    def stream_encode(
        self,
        source: str | Sequence[int],
        *,
        source_language: str = "",
        target_language: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Encode a source and receive the memory in chunks: a local memory of any size."""
        return self._portal.run(
            self._client.stream_encode(
                source,
                source_language=source_language,
                target_language=target_language,
                timeout=timeout,
            )
        )

    def embed(
        self,
        source: str | Sequence[int],
        *,
        pooling: Pooling = "auto",
        source_language: str = "",
        timeout: float | None = None,
    ) -> FloatArray:
        """Return one vector for a source, (D,) in float32."""
        return self._portal.run(
            self._client.embed(
                source, pooling=pooling, source_language=source_language, timeout=timeout
            )
        )

    def fetch(self, memory: Memory, *, timeout: float | None = None) -> Memory:
        """Return a local copy of a referenced memory; its lease stays as it is."""
        return self._portal.run(self._client.fetch(memory, timeout=timeout))

    def renew(self, memory: Memory, *, lease: float = 0.0, timeout: float | None = None) -> Memory:
        """Prolong the lease of a referenced memory to `lease` seconds; 0: the server's default."""
        return self._portal.run(self._client.renew(memory, lease=lease, timeout=timeout))

    def release(self, memory: Memory, *, timeout: float | None = None) -> int:
        """End the lease of a referenced memory; returns how many leases of others remain."""
        return self._portal.run(self._client.release(memory, timeout=timeout))

    def open_session(
        self,
        memory: Memory,
        *,
        language: str = "",
        target_prefix: TargetPrefix | None = None,
        request_id: str | None = None,
        max_positions: int = 0,
        task: Task | Literal[""] = "",
        timestamps: bool = False,
        timeout: float | None = None,
    ) -> Session:
        """Open a session on a memory: a local one is uploaded, a reference is passed on."""
        session = self._portal.run(
            self._client.open_session(
                memory,
                language=language,
                target_prefix=target_prefix,
                request_id=request_id,
                max_positions=max_positions,
                task=task,
                timestamps=timestamps,
                timeout=timeout,
            )
        )
        return Session(self._portal, session)

    def decode(
        self,
        memory: Memory,
        *,
        language: str = "",
        target_prefix: TargetPrefix | None = None,
        max_positions: int = 0,
        max_tokens_per_message: int = 0,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generation:
        """Decode a memory in one call, with no session to close."""

        async def start() -> AsyncGeneration:
            return self._client.decode(
                memory,
                language=language,
                target_prefix=target_prefix,
                max_positions=max_positions,
                max_tokens_per_message=max_tokens_per_message,
                timeout=timeout,
                **options,
            )

        return Generation(self._portal, self._portal.run(start()))

    def encoder_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Describe the model of the encoder service."""
        return self._portal.run(self._client.encoder_info(timeout=timeout))

    def decoder_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Describe the model of the decoder service."""
        return self._portal.run(self._client.decoder_info(timeout=timeout))

    def close(self) -> None:
        """Cancel calls that are running, let go of what they hold, and close the connections."""
        if self._finalizer.alive:
            self._portal.run(self._client.close())
            self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
