"""The client for asyncio. `splitformer_client.connect` gives the same without asyncio.

Here is what takes both services; `splitformer_client.calls` has the rest.
"""

# A `timeout` is the deadline of an operation, shared by its RPCs.
# ruff: noqa: ASYNC109

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from typing import Literal, Unpack

from splitformer import tracing
from splitformer_client.audio import Audio, AudioEncoding, AudioForm
from splitformer_client.calls import ServiceCalls
from splitformer_client.fan import Fan, pooled_encoder
from splitformer_client.generation import AsyncGeneration
from splitformer_client.options import GenerationOptions, TargetPrefix, prefixes_of
from splitformer_client.pooled import PooledEncoder
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncSession
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
from splitformer_client.tasks import together
from splitformer_client.transcription import Heard, SpeechJob, Task, Transcribing
from splitformer_client.translation import Event, Job, LongText, Translating
from splitformer_client.values import Score, Token, Transcript, Translation
from splitformer_client.wishes import Wishes

__all__ = ["AsyncClient", "AsyncGeneration", "AsyncSession", "connect"]

TOKENS_PER_MESSAGE = 64
"""What `translate` asks of the decoder, because nobody looks at single tokens there."""


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
        tls: How connections are secured, or False; if left out or True, as the variables
            `SPLITFORMER_TLS`, `SPLITFORMER_TLS_CA`, `SPLITFORMER_TLS_CERTIFICATE` and
            `SPLITFORMER_TLS_KEY` say.
        timeout: Seconds that a call may take in all, unless it names a timeout of its own;
            `math.inf`: no limit.
        allowed_endpoint_suffixes: Domains of further servers that a reply may refer the client to.

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


class AsyncClient(ServiceCalls):
    """Both services in one object. Use it from one event loop, for any number of calls at once.

    Methods raise subclasses of `SplitformerError`, never gRPC's exceptions. `timeout` is in seconds
    and covers the whole call; None is the client's default.

    Args:
        settings: Addresses and habits.

    Raises:
        ConfigurationError: A TLS file cannot be used.
    """

    async def translate(
        self,
        text: str,
        to: str | Sequence[str],
        *,
        source_language: str = "",
        long_text: LongText = "split",
        target_prefix: TargetPrefix | Mapping[str, TargetPrefix] | None = None,
        keep_placeholders: bool = True,
        break_loops: bool = True,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Translation]:
        """Translate a text into one or more languages at the same time.

        Args:
            text: The source.
            to: Target language or languages.
            source_language: Language of the text; empty: the model's own.
            long_text: "split" splits a text that is too long for the model into sentences; "refuse"
                raises the server's error.
            target_prefix: Text or token ids that the translation begins with; for several
                languages, a mapping from language to prefix. What is returned is what follows it.
            keep_placeholders: Redo a translation that lacks placeholders, tags or entities of its
                source, with a beam search that requires them. Has no effect with options that
                cannot be combined with a glossary.
            break_loops: Redo a translation that repeats itself endlessly, with
                `no_repeat_ngram_size` 3, unless the options set a filter against repetition.
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
            Wishes(keep_placeholders, break_loops),
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
        max_tokens_per_message: int = 0,
        keep_placeholders: bool = True,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Event]:
        """Translate, yielding (language, token) as tokens are produced, then (language, end).

        Arguments are those of `translate`. A message from the server carries one token, or up to
        `max_tokens_per_message` if it has several ready: the tokens of one step then come together,
        which is faster. A text with placeholders to keep, or such a sentence of a text in pieces,
        is delivered once it is complete.

        Leaving the loop early cancels the work and releases everything; wrap the iterator in
        `contextlib.aclosing` to have that finished before you continue.
        """
        languages = names(to)
        job = Job(
            text,
            languages,
            source_language,
            long_text,
            self.settings.max_in_flight,
            max_tokens_per_message,
            options,
            prefixes_of(target_prefix, languages),
            Wishes(keep_placeholders),
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
        max_tokens_per_message: int = 0,
        keep_placeholders: bool = True,
        timeout: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Token]:
        """Translate into one language, yielding tokens; see `translate_stream`."""
        events = self.translate_stream(
            text,
            to,
            source_language=source_language,
            long_text=long_text,
            target_prefix=target_prefix,
            max_tokens_per_message=max_tokens_per_message,
            keep_placeholders=keep_placeholders,
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
        """Return how probable given translations are: one encoding, and a parallel pass each.

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
        """Transcribe audio of any length.

        Args:
            audio: Path of a file, bytes, an open file, chunks as they come, or an array of samples
                between -1 and 1, (samples,) or (samples, channels).
            language: Spoken language; empty: detect it in the first window.
            task: "transcribe" writes what was said, "translate" translates it into English.
            timestamps: Mark times; segments are then phrases, otherwise whole windows.
            encoding: "wav", "flac", "pcm_s16le" or "pcm_f32le"; empty: read it from the file.
            sample_rate: Samples per second of raw samples.
            channels: Interleaved channels of raw samples.
            timeout: Seconds for the whole; if left out, there is no limit.
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
        """Transcribe, yielding tokens as they are produced, and segments once their text is final.

        Arguments are those of `transcribe`. Tokens that end up in no segment were cut off by the
        end of a window, and are transcribed again. Leaving the loop early cancels the work and
        releases everything, as with `translate_stream`.
        """
        form = AudioForm(encoding, sample_rate, channels)
        job = SpeechJob(audio, form, language, task, timestamps, options=options)
        with self._operation("transcribe", math.inf if timeout is None else timeout) as scope:
            work = Transcribing(self._services, job, scope)
            async with contextlib.aclosing(work.events()) as events:
                async for event in events:
                    yield event

    @contextlib.asynccontextmanager
    async def bulk(self) -> AsyncIterator[PooledEncoder]:
        """Encode everything that is translated inside the block on one stream, as a bulk job.

        Single calls of others take precedence. `done` of what it yields counts encoded sources.
        """
        before, pooled = self._services, pooled_encoder(self._services, self._scope(math.inf))
        self._services = dataclasses.replace(before, pooled=pooled)
        try:
            yield pooled
        finally:
            self._services = before
            await pooled.close()

    @contextlib.contextmanager
    def _operation(self, name: str, timeout: float | None) -> Iterator[Scope]:
        """The scope of an operation of many RPCs, which have a span together."""
        with tracing.operation(f"splitformer.{name}") as span:
            yield dataclasses.replace(self._scope(timeout), trace=span)
