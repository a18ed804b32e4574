"""One source, encoded, with a session per target language open on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from splitformer.errors import SplitformerError
from splitformer.v1 import encoder_service_pb2
from splitformer_client.decoder import Decoder, Opening
from splitformer_client.encoder import Encoder, source_of
from splitformer_client.memory import Memory
from splitformer_client.options import NO_PREFIXES, TargetPrefix
from splitformer_client.pooled import PooledEncoder
from splitformer_client.retry import while_unavailable
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncSession
from splitformer_client.tasks import Aftermath, cancel, together

POOLED_IN_FLIGHT = 256
"""Most sources of a bulk job without an answer."""

POOLED_ATTEMPTS = 6
"""Streams that a source of a bulk job is sent on at most."""

CLEANUP_SECONDS = 2.0
"""How long letting go may take; after it, leases and sessions expire by themselves."""

ANSWER_SECONDS = 0.5
"""How long letting go waits for memories and sessions that are just coming into being."""


@dataclass(frozen=True, slots=True)
class Services:
    """Both services, and the clean-up that is under way.

    Attributes:
        encoder: RPCs of the encoder service.
        decoder: RPCs of the decoder service.
        aftermath: Clean-up to wait for before the channels are closed.
        running: Translations under way.
        pooled: Encodes what is part of a bulk job; None: each source is a call of its own.
    """

    encoder: Encoder
    decoder: Decoder
    aftermath: Aftermath
    running: set[asyncio.Task[None]]
    pooled: PooledEncoder | None = None

    async def encode(self, source: encoder_service_pb2.Source, scope: Scope) -> Memory:
        """Encode a source and have its memory kept; sources of a stream that breaks get another."""
        if self.pooled is None:
            return await self.encoder.encode(source, "reference", 0.0, scope)
        encode = self.pooled.encode
        return await while_unavailable(lambda: scope.within(encode(source)), POOLED_ATTEMPTS, scope)

    async def release(self, memory: Memory, scope: Scope) -> None:
        """End a lease; one that has expired is no loss."""
        with contextlib.suppress(SplitformerError):
            await self.encoder.release(memory, scope.aftermath(CLEANUP_SECONDS))

    async def close(self) -> None:
        """Cancel what is running, let go of everything, then close the channels."""
        await cancel(self.running)
        await self.aftermath.finish()
        await self.encoder.close()
        await self.decoder.close()


def pooled_encoder(services: Services, scope: Scope) -> PooledEncoder:
    """Make what encodes the sources of a bulk job, each kept under a lease of its own."""
    return PooledEncoder(
        lambda sources: services.encoder.encode_many(
            sources, lambda source: source, "reference", 0.0, POOLED_IN_FLIGHT, scope
        ),
        lambda memory: services.aftermath.start(services.release(memory, scope)),
    )


class Fan:
    """Encodes a source once, or once per language if memories are bound to one; opens sessions.

    The leases are ended as soon as the last session is open: each decoder holds its own by then.

    Args:
        services: Where to encode and decode.
        scope: The operation this is part of.
    """

    def __init__(self, services: Services, scope: Scope) -> None:
        self._services = services
        self._scope = scope
        self._encoding: list[asyncio.Task[Memory]] = []
        self._held: list[Memory] = []
        self._opening: dict[str, asyncio.Task[AsyncSession]] = {}
        self._releasing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def spread(
        self,
        text: str,
        source_language: str,
        languages: Sequence[str],
        prefixes: Mapping[str, TargetPrefix] = NO_PREFIXES,
    ) -> AsyncIterator[Mapping[str, asyncio.Task[AsyncSession]]]:
        """Give the sessions as they open; leaving closes those that have not ended.

        Args:
            text: The source.
            source_language: Its language; empty: the model's own.
            languages: Target languages, each once.
            prefixes: What targets begin with.
        """
        try:
            memories = await self._encode(text, source_language, languages)
            for language, memory in memories.items():
                prefix = prefixes.get(language)
                self._opening[language] = asyncio.create_task(self._open(memory, language, prefix))
            self._releasing = self._services.aftermath.start(self._release_when_open())
            yield self._opening
        finally:
            await self._services.aftermath.run(self._let_go())

    @contextlib.asynccontextmanager
    async def over(self, opening: Opening) -> AsyncIterator[AsyncSession]:
        """Give a session over a memory that is held already, and end its lease.

        Leaving closes the session unless it has ended.
        """
        self._held.append(opening.memory)
        try:
            task = asyncio.create_task(self._services.decoder.open_session(opening, self._scope))
            self._opening[opening.language] = task
            self._releasing = self._services.aftermath.start(self._release_when_open())
            yield await asyncio.shield(task)  # stopping it is up to `_let_go`
        finally:
            await self._services.aftermath.run(self._let_go())

    async def _encode(
        self, text: str, source_language: str, languages: Sequence[str]
    ) -> dict[str, Memory]:
        info = await self._services.encoder.known_info(self._scope)
        if info.language_on_decoder:
            return dict.fromkeys(languages, await self._encode_for(text, source_language, ""))
        memories = await together(
            self._encode_for(text, source_language, language) for language in languages
        )
        return dict(zip(languages, memories, strict=True))

    async def _encode_for(self, text: str, source_language: str, language: str) -> Memory:
        source = source_of(text, source_language, language)
        encoding = asyncio.create_task(self._hold(source))
        self._encoding.append(encoding)
        return await asyncio.shield(encoding)  # stopping it is up to `_let_go`

    async def _hold(self, source: encoder_service_pb2.Source) -> Memory:
        memory = await self._services.encode(source, self._scope)
        self._held.append(memory)
        return memory

    async def _open(
        self, memory: Memory, language: str, prefix: TargetPrefix | None
    ) -> AsyncSession:
        opening = Opening(memory, "" if memory.language else language, prefix)
        return await self._services.decoder.open_session(opening, self._scope)

    async def _release_when_open(self) -> None:
        await asyncio.wait(self._opening.values())
        await self._release()

    async def _release(self) -> None:
        """End the leases, each once; one that has expired is no loss."""
        while self._held:
            memory = self._held.pop()
            await self._services.release(memory, self._scope)

    async def _let_go(self) -> None:
        """Stop what is still running, close what has not ended, end the leases.

        Answers get a moment to arrive: what has an id that we never hear of cannot be let go.
        """
        running = [*self._encoding, *self._opening.values()]
        if running:
            await asyncio.wait(running, timeout=ANSWER_SECONDS)
        await cancel(running)
        for task in self._opening.values():
            if not task.cancelled() and task.exception() is None:
                with contextlib.suppress(SplitformerError):
                    await task.result().close_within(self._scope.aftermath(CLEANUP_SECONDS))
        await (self._releasing or self._release())
