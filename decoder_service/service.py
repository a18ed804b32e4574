"""The decoder service without its protocol: model, engine, sessions and rules put together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np

from decoder_service.allow_list import AllowList
from decoder_service.answers import Yielded
from decoder_service.budget import Budget, Reservation, Share
from decoder_service.channels import EncoderChannels
from decoder_service.engine import DecoderEngine
from decoder_service.generating import Generating
from decoder_service.hand_off import MemoryPuller
from decoder_service.interacting import Steering
from decoder_service.metrics import DecoderMetrics
from decoder_service.opening import Branch, OpeningRules, Wish, pieces_of
from decoder_service.scoring import Scorer
from decoder_service.sessions import Opened, Session, Sessions
from decoder_service.settings import DecoderSettings
from decoder_service.sharing import SharedMemories
from splitformer import tracing, wire
from splitformer.errors import UnavailableError
from splitformer.generation import (
    Drafting,
    GenerationOptions,
    Glossary,
    Sequential,
    SpeechRules,
    Target,
    Vocabulary,
    kept_bytes,
    overhead_of,
    run,
)
from splitformer.model.cache import DecoderState
from splitformer.model.shapes import decoder_shapes, weight_bytes
from splitformer.serving import kernels, models
from splitformer.serving.fleet import Fleet, Room
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import model_pb2, tensor_pb2

_SWEEP_SECONDS = 1.0
_BETWEEN_CALLS_SECONDS = 1.0
"""While draining, a session used this recently may be between two calls."""

CheckHeader = Callable[[tensor_pb2.MemoryHeader], None]
Transfer = Callable[[CheckHeader], Awaitable[tuple[tensor_pb2.MemoryHeader, wire.Buffer]]]
"""Brings a memory: checks its header with what it is given, then returns header and bytes."""


class DecoderService:
    """What the servicer calls and the server runs.

    Args:
        settings: How to run.
        telemetry: Where to count.
        room: What a model that is loaded by name has to keep to; None: the one to start with.
        beside: The service whose budget, connections and counters such a one shares.
    """

    names = ("splitformer.v1.DecoderService",)
    metrics: DecoderMetrics
    budget: Budget
    puller: MemoryPuller
    models: Fleet[DecoderService]
    draining: bool
    replica: str
    endpoint: str

    def __init__(
        self,
        settings: DecoderSettings,
        telemetry: Telemetry,
        room: Room | None = None,
        beside: DecoderService | None = None,
    ) -> None:
        self.settings = settings
        self._telemetry = telemetry
        self._room = room
        self._main = beside or self
        if beside is None:
            self._share(settings, telemetry)
        else:
            self.metrics, self.budget, self.models = beside.metrics, beside.budget, beside.models
            self.puller, self.endpoint, self.replica = (
                beside.puller,
                beside.endpoint,
                beside.replica,
            )
        self._opening = 0
        self.sessions = Sessions(
            self.budget,
            settings.idle_seconds,
            settings.record_seconds,
            closed=lambda how: self.metrics.closed.labels(how).inc(),
        )

    def _share(self, settings: DecoderSettings, telemetry: Telemetry) -> None:
        """Set up what all models of the process have in common."""
        self.metrics = DecoderMetrics(telemetry.registry)
        self.budget = Budget(settings.memory_bytes)
        self.puller = MemoryPuller(
            AllowList(settings.encoders),
            EncoderChannels(settings.encoder_tls_files),
            settings.fetch_seconds,
            SharedMemories(
                settings.shared_memory, lambda why: self.metrics.fallbacks.labels(why).inc()
            ),
            lambda path: self.metrics.transfers.labels(path).inc(),
        )
        self.draining = False
        self.replica = ""
        self.endpoint = settings.filled_in("endpoint", settings.endpoint)
        root = Path(settings.models) if settings.models else None
        self.models = Fleet(self, self._another, root, settings.models_bytes, telemetry)
        self.metrics.slots.set(settings.max_batch)
        self.metrics.memory_budget_bytes.set(settings.memory_bytes)
        self.metrics.memory_bytes.set_function(lambda: self.budget.used)
        self.metrics.sessions.set_function(lambda: sum(len(m.sessions) for m in self.models))

    def _another(self, folder: Path, room: Room) -> DecoderService:
        """Make a service over another model, which shares what is ours."""
        settings = dataclasses.replace(self.settings, model=str(folder))
        return DecoderService(settings, self._telemetry, room, self)

    async def start(self, port: int) -> None:
        """Load the model and run one session, so that the first caller does not wait."""
        if self._main is self:
            self.replica = f"{self.settings.reachable_host}:{port}"
        await asyncio.to_thread(self._load)
        self.engine = DecoderEngine(
            self._decoder,
            self._vocabulary.never,
            self.settings.max_batch,
            self.metrics,
            self.settings.arithmetic.pin,
        )
        self.generating = Generating(
            self.engine,
            self.sessions,
            self.metrics,
            self.settings.window_tokens,
            self._vocabulary,
            self._drafting,
            Glossary(self._checkpoint.tokenizer, self._vocabulary),
        )
        self.steering = Steering(
            self.generating, self.rules, lambda held: self.holding(held).steering
        )
        self.scorer = Scorer(self.engine, self.sessions, self.budget, self.rules)
        self._sweeper = asyncio.create_task(self._sweep())
        if self._main is self:
            self._count_engines()
            self.models.started(port)

    def _count_engines(self) -> None:
        models, metrics = self.models, self.metrics
        metrics.running.set_function(lambda: sum(model.engine.running for model in models))
        metrics.paused.set_function(lambda: sum(model.engine.paused for model in models))
        metrics.queued.set_function(lambda: sum(model.engine.queued for model in models))

    def drain(self) -> None:
        """Take no new sessions from now on."""
        self.draining = True

    @property
    def busy(self) -> bool:
        """True while a session is being used, or may be between two calls."""
        return any(m.sessions.recently_used(_BETWEEN_CALLS_SECONDS) for m in self.models)

    @property
    def in_use(self) -> bool:
        """True while the model has sessions, or one is being opened."""
        return len(self.sessions) > 0 or self._opening > 0

    @property
    def name(self) -> str:
        """Name under which requests ask for our model."""
        return self._checkpoint.description.name

    def holding(self, session_id: str) -> DecoderService:
        """Return the service that has or remembers a session; ours if none does."""
        holders = (model for model in self.models if model.sessions.knows(session_id))
        return next(holders, self)

    async def close(self) -> None:
        """Stop the engine, failing what still runs; and what models share, if it is ours."""
        self._sweeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeper
        if self._main is self:
            await self.models.close_others()
        await asyncio.to_thread(self.engine.close)
        self._decoder.close()
        if self._main is self:
            await self.puller.close()

    async def open(self, wish: Wish, request_id: str, route: str, transfer: Transfer) -> Opened:
        """Open a session over a memory.

        Args:
            wish: What the caller asks for.
            request_id: Empty, or the same for repeated calls that mean one session.
            route: "upload" or "reference", for counting.
            transfer: Brings the memory.

        Raises:
            SplitformerError: What `OpeningRules`, the budget and `transfer` raise.
            UnavailableError: DRAINING.
        """
        self._check_not_draining()
        start = self.rules.start_tokens(wish)
        async with self.sessions.opening(request_id) as opening:
            if not opening.done():
                self._opening += 1
                try:
                    opened = await self._open(wish, start, transfer)
                finally:
                    self._opening -= 1
                self._telemetry.model_requests.labels(self.name).inc()
                self.metrics.opened.labels(route).inc()
                if route == "upload":
                    self.metrics.transfers.labels(route).inc()
                self.metrics.transfer_seconds.labels(route).observe(opened.transfer_seconds)
                self.metrics.project_seconds.observe(opened.project_seconds)
                tracing.parts(transfer=opened.transfer_seconds, project=opened.project_seconds)
                opening.set_result(opened)
            return opening.result()

    @contextlib.asynccontextmanager
    async def one_shot(
        self,
        wish: Wish,
        route: str,
        transfer: Transfer,
        options: GenerationOptions,
        tokens_per_message: int,
    ) -> AsyncIterator[AsyncIterator[Yielded]]:
        """Open a session, give what its generation yields, and let the session go on leaving.

        Raises:
            SplitformerError: What `open` and `Generating.generate` raise.
        """
        session = (await self.open(wish, "", route, transfer)).session
        try:
            parts = self.generating.generate(
                session.id, options, None, tokens_per_message, close_on_end=True
            )
            async with contextlib.aclosing(parts):
                yield parts
        finally:
            self.sessions.close(session, "closed")

    async def fork(self, session_id: str, request_id: str, branch: Branch) -> Opened:
        """Open a session over the memory of another one.

        Args:
            session_id: The other one; nothing may be running on it.
            request_id: Empty, or the same for repeated calls that mean one fork.
            branch: What the fork keeps.

        Raises:
            NotFoundError: SESSION_NOT_FOUND.
            AbortedError: SESSION_BUSY.
            SplitformerError: What `OpeningRules.check_branch` and the budget raise.
            UnavailableError: DRAINING.
        """
        self._check_not_draining()
        async with self.sessions.opening(request_id) as opening:
            if not opening.done():
                opening.set_result(await self._fork(self.sessions.get(session_id), branch))
                self.metrics.opened.labels("fork").inc()
            return opening.result()

    def close_session(self, session_id: str) -> int:
        """Let a session go, stopping what runs on it; return the bytes freed.

        Raises:
            NotFoundError: SESSION_NOT_FOUND.
        """
        session = self.sessions.get(session_id)
        if session.generation is not None:
            self.engine.expel(session.generation)
        return self.sessions.close(session, "closed")

    @property
    def fingerprint(self) -> tensor_pb2.Fingerprint:
        """The model's fingerprints."""
        return models.fingerprint(self._checkpoint, self.numerics)

    def info(self) -> model_pb2.ModelInfo:
        """Describe the model as we run it."""
        return self._info

    def load(self) -> model_pb2.Load:
        """Say how busy we are."""
        return model_pb2.Load(
            queued=sum(model.engine.queued for model in self.models),
            running=sum(model.engine.running for model in self.models),
            held=sum(len(model.sessions) for model in self.models),
            capacity=self.settings.max_batch,
            used_bytes=self.budget.used,
            budget_bytes=self.budget.total,
            draining=self.draining,
        )

    async def _open(self, wish: Wish, start: tuple[int, ...], transfer: Transfer) -> Opened:
        began = time.perf_counter()
        positions = self.rules.positions(wish)
        own = self.rules.own_bytes(positions)
        with Reservation(self.budget) as reservation:

            def admit(header: tensor_pb2.MemoryHeader) -> None:
                self.rules.check_header(header, wish.language)
                size = own + self.rules.memory_bytes(header.shape[0])
                reservation.add(size + wire.packed_bytes(header.dtype, header.shape), "memory")

            header, data = await transfer(admit)
            received = time.perf_counter()
            self.metrics.received_bytes.inc(len(data))
            memory = wire.unpack(data, header.dtype, header.shape, "memory")
            self.rules.check_values(memory)
            state = await self.engine.begin(memory)
            language = header.target_language or wish.language
            if self.rules.detects(language):
                language = await self._detected(state)
                start = self.rules.start_tokens(dataclasses.replace(wish, language=language))
            target = Target(start, state, self.rules.detokenizer(start), positions)
            target.source, target.source_text = pieces_of(header), header.source_text
            target.forced = self.rules.forced(wish, start)
            memory_bytes = self.rules.memory_bytes(header.shape[0])
            share = Share(self.budget, memory_bytes)
            session = self.sessions.add(target, language, header.shape[0], own, share)
            reservation.keep(own + memory_bytes)
        return Opened(session, received - began, time.perf_counter() - received)

    async def _fork(self, parent: Session, branch: Branch) -> Opened:
        began = time.perf_counter()
        await self.sessions.claim(parent)
        kept = self.rules.check_branch(branch, parent.language, len(parent.target.produced))
        language = branch.language or parent.language
        positions, own = parent.target.max_positions, parent.own_bytes
        with Reservation(self.budget) as reservation:
            reservation.add(own, "session")
            if language == parent.language:
                target = await self._branch(parent.target, kept)
            else:
                speech = self.rules.same_speech(parent.target.start)
                start = self.rules.start_tokens(Wish(language, speech=speech))
                state = parent.target.state.afresh()
                target = Target(start, state, self.rules.detokenizer(start), positions)
                target.forced = self.rules.forced(Wish(language), start)
            target.source = parent.target.source
            target.source_text = parent.target.source_text
            details = kept_bytes(target)
            reservation.add(details, "session")
            session = self.sessions.add(
                target, language, parent.source_positions, own, parent.memory, details
            )
            reservation.keep(own + details)
        return Opened(session, 0.0, time.perf_counter() - began)

    async def _detected(self, state: DecoderState) -> str:
        """Find out the language of a memory; what was computed for that stays in the state."""
        description = self._checkpoint.description
        assert description.speech is not None
        start, tokens = description.languages.starts[""], description.speech.languages
        found = await self.engine.likeliest_of(state, start[0], list(tokens.values()))
        return next(language for language, token in tokens.items() if token == found)

    async def _branch(self, target: Target, kept: int) -> Target:
        """Copy a target up to `kept` tokens; the end goes with the last of them."""
        produced, end = target.produced[:kept], target.end
        whole = kept == len(target.produced)
        state = await self.engine.fork(target.state)
        state.truncate(min(state.length, len(target.start) + kept - 1))
        detokenizer = self.rules.detokenizer(target.start, *(token.id for token in produced))
        branch = Target(target.start, state, detokenizer, target.max_positions, produced)
        branch.end, branch.forced = end if whole else None, target.forced
        return branch

    def _check_not_draining(self) -> None:
        if self._main.draining:
            raise UnavailableError(
                "the service takes no new sessions", reason="DRAINING", retry_after=1.0
            )

    def _load(self) -> None:
        name = self._room.name if self._room else ""
        self._checkpoint = models.open_checkpoint(self.settings.model, self.settings.cache, name)
        if self._room is not None:
            shapes = decoder_shapes(self._checkpoint.description.architecture)
            precision = kernels.held_precision(self.settings.arithmetic)
            self._room.admit(weight_bytes(shapes, precision))
        description = self._checkpoint.description
        speech = description.speech
        self._vocabulary = Vocabulary(
            description.eos_id,
            description.never_generated,
            description.architecture.target_vocabulary_size,
            description.end_at_limit,
            SpeechRules.of(speech, description.eos_id) if speech is not None else None,
        )
        self._decoder = kernels.step_decoder(
            self._checkpoint, self.settings.arithmetic, self.settings.memory_bytes
        )
        self.numerics = models.numerics(
            self._decoder.precision, self.settings.memory_dtype, self._decoder.kernel
        )
        self._info = self._described()
        kernels.give_back()
        self.rules = OpeningRules(self._checkpoint, self.settings.memory_dtype, self._decoder)
        self._warm_up()
        self._drafting = self._measured()

    def _measured(self) -> Drafting:
        """Say what guessing several tokens at once has to know; measures what rows cost."""
        description, size = self._checkpoint.description, self._vocabulary.size
        shared = description.architecture.share_embeddings
        unusable = frozenset((*self._vocabulary.never, self._vocabulary.eos_id))
        return Drafting(
            overhead=overhead_of(self._decoder),
            lossless=self._decoder.batch_invariant,
            begins_word=self._checkpoint.tokenizer.word_beginnings(size),
            unusable=unusable if shared else None,
            counted=self.metrics.count_draft,
        )

    def _described(self) -> model_pb2.ModelInfo:
        config = self._decoder.config
        info = models.model_info(
            self._checkpoint,
            decoder_shapes(config),
            self._decoder.precision,
            self.settings.memory_dtype,
            self.numerics,
        )
        info.layers, info.vocabulary_size = config.decoder_layers, config.target_vocabulary_size
        info.device = self.settings.device
        info.batch_invariant = self._decoder.batch_invariant
        return info

    def _warm_up(self) -> None:
        """Run one step outside the engine, so that the first caller does not pay for set-up."""
        description = self._checkpoint.description
        state = self._decoder.begin(np.zeros((1, description.architecture.d_model), np.float32))
        target = Target((description.eos_id,), state, self._checkpoint.tokenizer.detokenizer(), 1)
        decoding = Sequential(target, GenerationOptions(), 1, self._vocabulary)
        run(self._decoder, decoding, self._vocabulary.never)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sessions.sweep()
