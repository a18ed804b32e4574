"""Each service's own calls, for asyncio: memories, sessions, and what the services are."""

# A `timeout` is the deadline of an operation, shared by its RPCs.
# ruff: noqa: ASYNC109

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self, Unpack

from splitformer.wire import FloatArray
from splitformer_client.bulk import AsyncEncoding, Sources
from splitformer_client.decoder import Decoder, Opening
from splitformer_client.encoder import Delivery, Encoder, Pooling, source_of
from splitformer_client.fan import Services
from splitformer_client.generation import AsyncGeneration
from splitformer_client.info import ModelInfo
from splitformer_client.memory import Memory
from splitformer_client.options import GenerationOptions, TargetPrefix
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncSession
from splitformer_client.settings import Settings
from splitformer_client.tasks import Aftermath
from splitformer_client.transcription import Task


class ServiceCalls:
    """Both services' addresses, and the calls that one of them answers.

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
            delivery: "inline": return the values; "reference": keep them at the encoder under a
                lease; "auto": inline if small.
            source_language: Language of the text; empty: the model's own.
            target_language: For models whose memory is bound to a target language.
            lease: Seconds that a reference stays valid; 0: the server's default.
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
        """Encode many sources on one stream, yielding each as it finishes, in any order.

        Single calls of others take precedence. A source that fails is yielded with its error, and
        the others continue. References have to be released one by one.

        Args:
            sources: Texts or token ids; an iterator, asynchronous or not, is read only as fast as
                you read the answers.
            delivery: As for `encode`.
            source_language: As for `encode`.
            target_language: As for `encode`.
            lease: As for `encode`.
            in_flight: Most sources without an answer; the server has a limit of its own.
            timeout: Seconds for the whole job; no limit by default.

        Returns:
            An iterator of `Encoded`, which also reports progress: `sent`, `done`, `failed`.
        """
        return self._services.encoder.encode_many(
            sources,
            lambda source: source_of(source, source_language, target_language),
            delivery,
            lease,
            in_flight,
            self._scope(timeout),
        )

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
        """Return one vector for a source, (D,) in float32; the server keeps nothing.

        Args:
            source: Text, or token ids complete with the model's end token.
            pooling: "mean" over the source's positions; "cls" if the model has such a row;
                "auto": the model's own choice.
            source_language: Language of the text; empty: the model's own.
            timeout: Seconds.

        Raises:
            InvalidArgumentError: BAD_POOLING, the model cannot be pooled that way.
        """
        message = source_of(source, source_language)
        return await self._services.encoder.embed(message, pooling, self._scope(timeout))

    async def fetch(self, memory: Memory, *, timeout: float | None = None) -> Memory:
        """Return a local copy of a referenced memory; its lease is unchanged."""
        return await self._services.encoder.fetch(memory, self._scope(timeout))

    async def renew(
        self, memory: Memory, *, lease: float = 0.0, timeout: float | None = None
    ) -> Memory:
        """Extend the lease of a referenced memory to `lease` seconds; 0: the server's default."""
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
            request_id: Makes opening idempotent: a second call with it returns the same session.
            max_positions: Positions to reserve room for; 0: as many as the model has.
            task: For speech models: "transcribe" or "translate".
            timestamps: For speech models: mark times.
            timeout: Seconds, including all attempts while the decoder is unavailable.

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
        """Decode a memory in one call that combines `open_session` and `Session.generate`.

        The decoder keeps nothing, so an interrupted call cannot be resumed. Arguments are those of
        the two methods.

        Returns:
            An iterator of tokens. Closing it early cancels the call and releases everything.
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
        """Cancel running calls, release what they hold, and close the connections."""
        await self._services.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _scope(self, timeout: float | None) -> Scope:
        return Scope(self.settings.timeout if timeout is None else timeout)
