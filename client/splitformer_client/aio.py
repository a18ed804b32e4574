"""The client for asyncio. `splitformer_client.connect` gives the same without asyncio."""

# A `timeout` is the deadline of an operation, shared by its RPCs.
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import Literal, Self, Unpack

from splitformer import tracing
from splitformer.wire import FloatArray
from splitformer_client.audio import Audio, AudioEncoding, AudioForm
from splitformer_client.bulk import AsyncEncoding, Sources
from splitformer_client.decoder import Decoder, Opening
from splitformer_client.encoder import Delivery, Encoder, Pooling, source_of
from splitformer_client.fan import Fan, Services, pooled_encoder
from splitformer_client.memory import Memory
from splitformer_client.options import GenerationOptions, TargetPrefix, prefixes_of
from splitformer_client.pooled import PooledEncoder
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncGeneration, AsyncSession
from splitformer_client.settings import (
    DECODER_VARIABLE,
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    ENCODER_VARIABLE,
    Settings,
    Tls,
    address,
    names,
    tls_of,
)
from splitformer_client.tasks import Aftermath, together
from splitformer_client.transcription import Heard, SpeechJob, Task, Transcribing
from splitformer_client.translation import Event, Job, LongText, Translating
from splitformer_client.values import ModelInfo, Score, Token, Transcript, Translation

__all__ = ["AsyncClient", "AsyncGeneration", "AsyncSession", "connect"]

TOKENS_PER_MESSAGE = 64
"""What `translate` allows the decoder, as nobody looks at single tokens there."""


def connect(
    encoder: str | None = None,
    decoder: str | None = None,
    *,
    model: str = "",
    tls: Tls | bool | None = None,
    timeout: float = 30.0,
    allowed_endpoint_suffixes: Sequence[str] = (),
) -> AsyncClient:
    """Make a client; connections are opened when they are first needed.

    Args:
        encoder: Address of the encoder service; left out: `SPLITFORMER_ENCODER` or localhost:50051.
        decoder: Address of the decoder service; left out: `SPLITFORMER_DECODER` or localhost:50052.
        model: Name of the model; empty: the servers' default.
        tls: How connections are secured, or False; left out or True: as the variables
            `SPLITFORMER_TLS`, `SPLITFORMER_TLS_CA`, `SPLITFORMER_TLS_CERTIFICATE` and
            `SPLITFORMER_TLS_KEY` say.
        timeout: Seconds a call may take in all when it names no timeout; `math.inf`: no limit.
        allowed_endpoint_suffixes: Domains of further servers that replies may send the client to.

    Raises:
        ConfigurationError: A setting breaks its rule, or a TLS file cannot be used.
    """
    return AsyncClient(
        Settings(
            encoder=address(encoder, ENCODER_VARIABLE, DEFAULT_ENCODER),
            decoder=address(decoder, DECODER_VARIABLE, DEFAULT_DECODER),
            model=model,
            tls=tls_of(tls),
            timeout=timeout,
            allowed_endpoint_suffixes=names(allowed_endpoint_suffixes),
        )
    )


class AsyncClient:
    """Both services in one object. Use it from one event loop, for any number of calls at once.

    Every method raises `SplitformerError` and nothing of gRPC; `timeout` is in seconds and covers
    the whole call, None is the client's default.

    Args:
        settings: Addresses and habits.

    Raises:
        ConfigurationError: A TLS file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        credentials = settings.tls.files().read().channel_credentials() if settings.tls else None
        encoder = Encoder(settings, credentials)
        decoder = Decoder(settings, self._scope, credentials)
        self._services = Services(encoder, decoder, Aftermath(), set())

    async def translate(
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
        """Translate a text into one or more languages at the same time.

        Args:
            text: The source.
            to: Target language or languages.
            source_language: Language of the text; empty: the model's own.
            long_text: "split" cuts a text that is too long for the model into sentences; "refuse"
                raises the server's error.
            target_prefix: Text or token ids that the translation begins with; of several languages,
                a mapping from language to prefix. Texts and tokens that are given are what follows.
            timeout: Seconds.
            **options: How tokens are chosen.

        Returns:
            One translation per language, in the order of `to`.

        Raises:
            InvalidArgumentError: EMPTY_SOURCE, SOURCE_TOO_LONG, an unknown language or value.
        """
        languages = names(to)
        job = Job(
            text,
            languages,
            source_language,
            long_text,
            self.settings.max_in_flight,
            TOKENS_PER_MESSAGE,
            options,
            prefixes_of(target_prefix, languages),
        )
        with self._operation("translate", timeout) as scope:
            return await Translating(self._services, job, scope).translations()

    async def translate_stream(
        self,
        text: str,
        to: str | Sequence[str],
        *,
        source_language: str = "",
        long_text: LongText = "split",
        target_prefix: TargetPrefix | Mapping[str, TargetPrefix] | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Event]:
        """Translate, giving (language, token) as they come, then (language, end).

        Leaving the loop early cancels what is running and lets go of everything; wrap the iterator
        in `contextlib.aclosing` to have that done before going on.
        """
        languages = names(to)
        job = Job(
            text,
            languages,
            source_language,
            long_text,
            self.settings.max_in_flight,
            options=options,
            prefixes=prefixes_of(target_prefix, languages),
        )
        with self._operation("translate", timeout) as scope:
            work = Translating(self._services, job, scope)
            async with contextlib.aclosing(work.events()) as events:
                async for event in events:
                    yield event

    async def stream(
        self,
        text: str,
        to: str,
        *,
        source_language: str = "",
        long_text: LongText = "split",
        target_prefix: TargetPrefix | None = None,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Token]:
        """Translate into one language, giving the tokens as they come; see `translate_stream`."""
        events = self.translate_stream(
            text,
            to,
            source_language=source_language,
            long_text=long_text,
            target_prefix=target_prefix,
            timeout=timeout,
            **options,
        )
        async with contextlib.aclosing(events):
            async for _, event in events:
                if isinstance(event, Token):
                    yield event

    async def score(
        self,
        text: str,
        targets: Sequence[str | Sequence[int]],
        to: str,
        *,
        source_language: str = "",
        include_end: bool = True,
        timeout: float | None = None,
    ) -> list[Score]:
        """Say how probable given translations of a text are: one encoding, a parallel pass each.

        Args:
            text: The source.
            targets: Translations, as texts or as token ids.
            to: Their language.
            source_language: Language of the text; empty: the model's own.
            include_end: Score the end token too, as is right for whole translations.
            timeout: Seconds.
        """
        if isinstance(targets, str):
            raise TypeError(f"targets: must be several, not a plain string, got {targets!r}")
        with self._operation("score", timeout) as scope:
            fan = Fan(self._services, scope)
            async with fan.spread(text, source_language, (to,)) as sessions:
                session = await asyncio.shield(sessions[to])
                return await together(
                    session.score_within(scope, target, include_end) for target in targets
                )

    async def transcribe(
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
        """Write down what is said in an audio, of any length.

        Args:
            audio: Path of a file, bytes, an open file, chunks as they come, or an array of samples
                between -1 and 1, (samples,) or (samples, channels).
            language: What is spoken; empty: found out in the first window.
            task: "transcribe" writes what was said, "translate" writes it in English.
            timestamps: Mark times; segments are phrases then, and whole windows otherwise.
            encoding: "wav", "flac", "pcm_s16le" or "pcm_f32le"; empty: as the file itself says.
            sample_rate: Samples per second, where no file says it.
            channels: Interleaved channels of raw encodings.
            timeout: Seconds for the whole; left out: no limit.
            **options: How tokens are chosen.

        Raises:
            InvalidArgumentError: The audio is bad: BAD_AUDIO, AUDIO_TRUNCATED, EMPTY_AUDIO,
                BAD_SAMPLE_RATE or BAD_CHANNELS; or the model takes text (SOURCE_IS_TEXT).
        """
        form = AudioForm(encoding, sample_rate, channels)
        job = SpeechJob(audio, form, language, task, timestamps, TOKENS_PER_MESSAGE, options)
        with self._operation("transcribe", math.inf if timeout is None else timeout) as scope:
            return await Transcribing(self._services, job, scope).transcript()

    async def transcribe_stream(
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
    ) -> AsyncGenerator[Heard]:
        """Transcribe, giving tokens as they come, and each segment once its text is certain.

        Arguments are those of `transcribe`. Tokens that no segment takes up were cut off by the end
        of a window, and are heard again. Leaving the loop early cancels what is running and lets go
        of everything, as with `translate_stream`.
        """
        form = AudioForm(encoding, sample_rate, channels)
        job = SpeechJob(audio, form, language, task, timestamps, options=options)
        with self._operation("transcribe", math.inf if timeout is None else timeout) as scope:
            work = Transcribing(self._services, job, scope)
            async with contextlib.aclosing(work.events()) as events:
                async for event in events:
                    yield event

    async def encode(
        self,
        source: str | Sequence[int],
        *,
        delivery: Delivery = "auto",
        source_language: str = "",
        target_language: str = "",
        lease: float = 0.0,
        timeout: float | None = None,
    ) -> Memory:
        """Encode a source.

        Args:
            source: Text, or token ids complete with the model's end token.
            delivery: "inline": numbers come here; "reference": they stay with the encoder under a
                lease; "auto": inline if small.
            source_language: Language of the text; empty: the model's own.
            target_language: For models whose memory is bound to a target language.
            lease: Seconds a reference shall stay valid; 0: the server's default.
            timeout: Seconds.
        """
        message = source_of(source, source_language, target_language)
        return await self._services.encoder.encode(message, delivery, lease, self._scope(timeout))

    def encode_many(
        self,
        sources: Sources,
        *,
        delivery: Delivery = "auto",
        source_language: str = "",
        target_language: str = "",
        lease: float = 0.0,
        in_flight: int = 256,
        timeout: float = math.inf,
    ) -> AsyncEncoding:
        """Encode many sources on one stream, giving each as it finishes, in any order.

        Single calls of others go before them. A source that fails is given with its error, and the
        others go on; references are to be released one by one.

        Args:
            sources: Texts or token ids; an iterator, asynchronous or not, is read as fast as
                answers are.
            delivery: As for `encode`.
            source_language: As for `encode`.
            target_language: As for `encode`.
            lease: As for `encode`.
            in_flight: Sources without an answer at most; the server has a limit of its own.
            timeout: Seconds for the whole job; no limit by default.

        Returns:
            An iterator of `Encoded`, which also says how far it has come: `sent`, `done`, `failed`.
        """
        return self._services.encoder.encode_many(
            sources,
            lambda source: source_of(source, source_language, target_language),
            delivery,
            lease,
            in_flight,
            self._scope(timeout),
        )

    @contextlib.asynccontextmanager
    async def bulk(self) -> AsyncIterator[PooledEncoder]:
        """Let all that is translated inside the block be encoded on one stream, as a bulk job.

        Single calls of others go before it. What it gives says how many sources are `done`.
        """
        before, pooled = self._services, pooled_encoder(self._services, self._scope(math.inf))
        self._services = dataclasses.replace(before, pooled=pooled)
        try:
            yield pooled
        finally:
            self._services = before
            await pooled.close()

    async def stream_encode(
        self,
        source: str | Sequence[int],
        *,
        source_language: str = "",
        target_language: str = "",
        timeout: float | None = None,
    ) -> Memory:
        """Encode a source and receive the memory in chunks: a local memory of any size."""
        message = source_of(source, source_language, target_language)
        return await self._services.encoder.stream_encode(message, self._scope(timeout))

    async def embed(
        self,
        source: str | Sequence[int],
        *,
        pooling: Pooling = "auto",
        source_language: str = "",
        timeout: float | None = None,
    ) -> FloatArray:
        """Return one vector for a source, (D,) in float32; nothing is kept.

        Args:
            source: Text, or token ids complete with the model's end token.
            pooling: "mean" over the source's positions; "cls" where the model has such a row;
                "auto": the model's own choice.
            source_language: Language of the text; empty: the model's own.
            timeout: Seconds.

        Raises:
            InvalidArgumentError: BAD_POOLING, the model cannot be pooled that way.
        """
        message = source_of(source, source_language)
        return await self._services.encoder.embed(message, pooling, self._scope(timeout))

    async def fetch(self, memory: Memory, *, timeout: float | None = None) -> Memory:
        """Return a local copy of a referenced memory; its lease stays as it is."""
        return await self._services.encoder.fetch(memory, self._scope(timeout))

    async def renew(
        self, memory: Memory, *, lease: float = 0.0, timeout: float | None = None
    ) -> Memory:
        """Prolong the lease of a referenced memory to `lease` seconds; 0: the server's default."""
        return await self._services.encoder.renew(memory, lease, self._scope(timeout))

    async def release(self, memory: Memory, *, timeout: float | None = None) -> int:
        """End the lease of a referenced memory; returns how many leases of others remain."""
        return await self._services.encoder.release(memory, self._scope(timeout))

    async def open_session(
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
    ) -> AsyncSession:
        """Open a session on a memory: a local one is uploaded, a reference is passed on.

        Args:
            memory: What to decode.
            language: Target language; empty if the memory is bound to one or the model has none.
            target_prefix: Text or token ids that the target starts with.
            request_id: Makes opening idempotent; a second call with it gives the same session.
            max_positions: Positions to reserve room for; 0: as many as the model has.
            task: What a model of speech is to write, "transcribe" or "translate".
            timestamps: Let it mark times.
            timeout: Seconds, for all attempts while the decoder is unavailable.

        Raises:
            PermissionDeniedError: ENDPOINT_NOT_ALLOWED.
            ResourceExhaustedError: OVER_BUDGET; `retry_after` says when to try again.
        """
        opening = Opening(
            memory, language, target_prefix, request_id, max_positions, task, timestamps
        )
        return await self._services.decoder.open_session(opening, self._scope(timeout))

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
    ) -> AsyncGeneration:
        """Decode a memory in one call: what `open_session` and `Session.generate` do, and no more.

        Nothing stays with the decoder, so what breaks off cannot be resumed. Arguments are those of
        the two methods.

        Returns:
            An iterator of tokens. Closing it early cancels the call and lets go of everything.
        """
        opening = Opening(memory, language, target_prefix, None, max_positions)
        return self._services.decoder.decode(
            opening, options, max_tokens_per_message, self._scope(timeout)
        )

    async def encoder_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Describe the model of the encoder service."""
        return await self._services.encoder.info(self._scope(timeout))

    async def decoder_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Describe the model of the decoder service."""
        return await self._services.decoder.info(self._scope(timeout))

    async def close(self) -> None:
        """Cancel calls that are running, let go of what they hold, and close the connections."""
        await self._services.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.contextmanager
    def _operation(self, name: str, timeout: float | None) -> Iterator[Scope]:
        """The scope of an operation of many RPCs, which have a span together."""
        with tracing.operation(f"splitformer.{name}") as span:
            yield dataclasses.replace(self._scope(timeout), trace=span)

    def _scope(self, timeout: float | None) -> Scope:
        return Scope(self.settings.timeout if timeout is None else timeout)
