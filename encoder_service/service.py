"""The encoder service without its protocol: model, engine, store and rules put together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from encoder_service.engine import Encoded, EncoderEngine, Limits
from encoder_service.loaded import Loaded, load
from encoder_service.metrics import EncoderMetrics
from encoder_service.segments import Segments
from encoder_service.settings import EncoderSettings
from encoder_service.sharing import SharingServer, start_sharing
from encoder_service.sources import HeardSource, Sources, TokenizedSource
from encoder_service.store import MemoryStore
from splitformer import tracing
from splitformer.errors import (
    InvalidArgumentError,
    ResourceExhaustedError,
    UnavailableError,
)
from splitformer.serving.fleet import Fleet, Room
from splitformer.serving.priority import session
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import model_pb2, tensor_pb2

_SWEEP_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class EncodedSource:
    """An encoded source, ready to be sent or kept."""

    header: tensor_pb2.MemoryHeader
    encoded: Encoded
    tokenize_seconds: float


class EncoderService:
    """What the servicer calls and the server runs.

    Args:
        settings: How to run.
        telemetry: Where to count.
        room: What a model that is loaded by name has to keep to; None: the one to start with.
        beside: The service whose store, budget and counters such a one shares.
    """

    names = ("splitformer.v1.EncoderService",)
    metrics: EncoderMetrics
    store: MemoryStore
    sharing: SharingServer | None
    models: Fleet[EncoderService]
    draining: bool
    endpoint: str
    _loaded: Loaded
    _engine: EncoderEngine
    _segments: Segments

    def __init__(
        self,
        settings: EncoderSettings,
        telemetry: Telemetry,
        room: Room | None = None,
        beside: EncoderService | None = None,
    ) -> None:
        self.settings = settings
        self._telemetry = telemetry
        self._room = room
        self._main = beside or self
        self._streams = 0
        if beside is None:
            self._share(settings, telemetry)
        else:
            self.metrics, self.store, self.models = beside.metrics, beside.store, beside.models
            self.endpoint, self.sharing = beside.endpoint, beside.sharing
            self._segments = beside._segments

    def _share(self, settings: EncoderSettings, telemetry: Telemetry) -> None:
        """Set up what all models of the process have in common."""
        self.metrics = EncoderMetrics(telemetry.registry)
        self.store = MemoryStore(
            settings.memory_bytes,
            lease_ended=lambda how: self.metrics.lease_ends.labels(how).inc(),
            memory_gone=self.metrics.memory_fetches.observe,
        )
        self.metrics.queue_limit.set(settings.max_queue)
        self.metrics.memory_budget_bytes.set(settings.memory_bytes)
        self.metrics.memory_bytes.set_function(lambda: self.store.used_bytes)
        self.metrics.memories.set_function(lambda: len(self.store))
        self.metrics.leases.set_function(lambda: self.store.leases)
        self.endpoint = settings.filled_in("advertise", settings.advertise)
        self.draining = False
        self._audio_streams = 0
        self._segments = Segments(settings.shared_memory)
        root = Path(settings.models) if settings.models else None
        self.models = Fleet(self, self._another, root, settings.models_bytes, telemetry)

    def _another(self, folder: Path, room: Room) -> EncoderService:
        """Make a service over another model, which shares what is ours."""
        settings = dataclasses.replace(self.settings, model=str(folder))
        return EncoderService(settings, self._telemetry, room, self)

    async def start(self, port: int) -> None:
        """Load the model and encode one source, so that the first caller does not wait."""
        self._loaded = await asyncio.to_thread(load, self.settings, self._room)
        self._start_engine()
        if self._main is self:
            self.endpoint = self.endpoint or f"{self.settings.reachable_host}:{port}"
            self.sharing = start_sharing(
                self.settings.shared_memory, self.store, self.metrics.shared_bytes.inc
            )
            self.metrics.open_sources.set_function(lambda: sum(m.open_sources for m in self.models))
            self._sweeper = asyncio.create_task(self._sweep())
            self.models.started(port)
        await self._engine.encode(self.sources.first)

    def _start_engine(self) -> None:
        self._engine = EncoderEngine(
            self._loaded.encoder,
            self._loaded.dtype,
            Limits(
                self.settings.max_batch_tokens,
                self.settings.max_queue,
                self.settings.max_queue_seconds,
                self.settings.window_ms / 1000,
            ),
            self.metrics,
            self._segments,
            self.settings.arithmetic.pin,
            session().serve,
        )

    def drain(self) -> None:
        """Take no new sources from now on."""
        self.draining = True

    @property
    def busy(self) -> bool:
        """True while a source has no answer or a decoder may be about to fetch a memory."""
        return any(model.in_use for model in self.models) or self.store.leases > 0

    @property
    def in_use(self) -> bool:
        """True while one of the model's sources has no answer, or it is heard on a stream."""
        return self._engine.open > 0 or self._streams > 0

    @property
    def open_sources(self) -> int:
        """Sources of the model that have no answer yet."""
        return self._engine.open

    async def close(self) -> None:
        """Stop the engine, failing sources without an answer; and what others share, if it is ours.

        Memories stay as long as their leases: nothing of them is the model's.
        """
        if self._main is self:
            await self.models.close_others()
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
            if self.sharing is not None:
                self.sharing.close()
        await asyncio.to_thread(self._engine.close)
        self._loaded.encoder.close()

    async def encode(
        self,
        source: TokenizedSource | HeardSource,
        keep_pieces: bool,
        bulk: bool = False,
        keep: bool = False,
    ) -> EncodedSource:
        """Encode a source; one of a bulk job lets single ones go first.

        Args:
            source: Its tokens or features.
            keep_pieces: Put them into the header.
            bulk: It is one of a bulk job.
            keep: The memory is to be kept, so decoders of this host shall be able to map it.

        Raises:
            ResourceExhaustedError: QUEUE_FULL.
            UnavailableError: DRAINING.
        """
        self._check_not_draining()
        pieces, tokenize_seconds = source.pieces, source.seconds
        encoded = await self._engine.encode(source.given, bulk, keep)
        self.metrics.sources.inc()
        self._telemetry.model_requests.labels(self.name).inc()
        self.metrics.source_tokens.inc(len(pieces))
        tracing.parts(
            tokenize=tokenize_seconds, queue=encoded.queue_seconds, encode=encoded.encode_seconds
        )
        tracing.note(source_tokens=len(pieces))
        self.metrics.tokenize_seconds.observe(tokenize_seconds)
        self.metrics.queue_seconds.observe(encoded.queue_seconds)
        self.metrics.encode_seconds.observe(encoded.encode_seconds)
        header = self._loaded.header(source, keep_pieces)
        return EncodedSource(header, encoded, tokenize_seconds)

    def memory_bytes(self, rows: int) -> int:
        """Return how many bytes a memory of so many rows takes in its wire type."""
        return self._loaded.memory_bytes(rows)

    @contextlib.contextmanager
    def audio_stream(self) -> Iterator[None]:
        """Count an audio stream while it lasts.

        Raises:
            UnavailableError: DRAINING.
            ResourceExhaustedError: TOO_MANY_AUDIO_STREAMS.
        """
        self._check_not_draining()
        most, main = self.settings.max_audio_streams, self._main
        if main._audio_streams >= most:
            raise ResourceExhaustedError(
                f"audio: at most {most} streams at once, and as many are open",
                reason="TOO_MANY_AUDIO_STREAMS",
                retry_after=1.0,
            )
        main._audio_streams += 1
        self._streams += 1
        try:
            yield
        finally:
            main._audio_streams -= 1
            self._streams -= 1

    @property
    def sources(self) -> Sources:
        """What the model takes."""
        return self._loaded.sources

    @property
    def name(self) -> str:
        """Name under which requests ask for our model."""
        return self._loaded.name

    @property
    def fingerprint(self) -> str:
        """Of the model."""
        return self._loaded.fingerprint.model

    def lease_seconds(self, milliseconds: int) -> float:
        """Return how long a lease shall last; 0 asks for the default.

        Raises:
            InvalidArgumentError: BAD_LEASE.
        """
        longest = self.settings.max_lease_seconds
        if not 0 <= milliseconds <= longest * 1000:
            raise InvalidArgumentError.of(
                "lease_ms", f"must be 0 to {int(longest * 1000)}", milliseconds, reason="BAD_LEASE"
            )
        return milliseconds / 1000 or self.settings.lease_seconds

    def info(self) -> model_pb2.ModelInfo:
        """Describe the model as we run it."""
        return self._loaded.info

    def load(self) -> model_pb2.Load:
        """Say how busy we are."""
        return model_pb2.Load(
            queued=sum(model.open_sources for model in self.models),
            capacity=self.settings.max_queue,
            held=len(self.store),
            used_bytes=self.store.used_bytes,
            budget_bytes=self.store.budget_bytes,
            draining=self.draining,
        )

    def _check_not_draining(self) -> None:
        if self._main.draining:
            raise UnavailableError(
                "the service takes no new sources", reason="DRAINING", retry_after=1.0
            )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.store.sweep()
