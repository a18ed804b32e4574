"""The decoder service without its protocol: model, engine, sessions and rules put together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

from decoder_service.answers import Yielded
from decoder_service.beginnings import Beginnings, Way
from decoder_service.common import Common
from decoder_service.engine import DecoderEngine
from decoder_service.generating import Generating
from decoder_service.loaded import Loaded, load
from decoder_service.opening import Branch, Wish
from decoder_service.runs import Runs
from decoder_service.scoring import Scorer
from decoder_service.sessions import Opened, Sessions
from decoder_service.settings import DecoderSettings
from decoder_service.steering import Steering
from splitformer import tracing
from splitformer.generation import GenerationOptions, Glossary
from splitformer.serving import models
from splitformer.serving.fleet import Fleet, Room
from splitformer.serving.telemetry import Telemetry
from splitformer.v1 import model_pb2, tensor_pb2

_SWEEP_SECONDS = 1.0
_BETWEEN_CALLS_SECONDS = 1.0
"""While draining, a session used this recently may be between two calls."""


class DecoderService:
    """What the servicer calls and the server runs.

    Args:
        settings: How to run.
        telemetry: Where to count.
        room: What a model that is loaded by name has to keep to; None: the one to start with.
        beside: The service whose budget, connections and counters such a one shares.

    Attributes:
        common: What it shares.
        models: All models of the process.
    """

    names = ("splitformer.v1.DecoderService",)
    common: Common
    models: Fleet[DecoderService]
    steering: Steering

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
        self.common = beside.common if beside else Common(settings, telemetry)
        self.metrics, self.budget = self.common.metrics, self.common.budget
        self._opening = 0
        self.sessions = Sessions(
            self.budget,
            settings.idle_seconds,
            settings.record_seconds,
            closed=lambda how: self.metrics.closed.labels(how).inc(),
        )
        self.models = beside.models if beside else self._fleet()

    def _fleet(self) -> Fleet[DecoderService]:
        """Make what holds all models of the process."""
        root = Path(self.settings.models) if self.settings.models else None
        models = Fleet(self, self._another, root, self.settings.models_bytes, self._telemetry)
        self.metrics.sessions.set_function(lambda: sum(len(model.sessions) for model in models))
        return models

    def _another(self, folder: Path, room: Room) -> DecoderService:
        """Make a service over another model, which shares what is ours."""
        settings = dataclasses.replace(self.settings, model=str(folder))
        return DecoderService(settings, self._telemetry, room, self)

    async def start(self, port: int) -> None:
        """Load the model and run one session, so that the first caller does not wait."""
        if self._main is self:
            self.common.replica = f"{self.settings.reachable_host}:{port}"
        self._model = await asyncio.to_thread(load, self.settings, self._room)
        self._put_to_work(self._model)
        self._sweeper = asyncio.create_task(self._sweep())
        if self._main is self:
            self._count_engines()
            self.models.started(port)

    def _put_to_work(self, model: Loaded) -> None:
        self.rules = model.rules
        self.engine = DecoderEngine(
            model.decoder,
            model.vocabulary.never,
            self.settings.max_batch,
            self.metrics,
            self.settings.arithmetic.pin,
        )
        self.runs = Runs(
            self.engine,
            self.sessions,
            self.metrics,
            self.settings.window_tokens,
            model.vocabulary,
            model.drafting,
            Glossary(model.checkpoint.tokenizer, model.vocabulary),
            model.checkpoint.defaults,
        )
        self.generating = Generating(self.runs, self.metrics)
        self.steering = Steering(self.runs, self.rules, lambda held: self.holding(held).steering)
        self._beginnings = Beginnings(
            model.checkpoint.description,
            self.rules,
            self.engine,
            self.sessions,
            self.budget,
            self.metrics,
        )
        self.scorer = Scorer(self.engine, self.sessions, self.budget, self.rules)

    def _count_engines(self) -> None:
        models, metrics = self.models, self.metrics
        metrics.running.set_function(lambda: sum(model.engine.running for model in models))
        metrics.paused.set_function(lambda: sum(model.engine.paused for model in models))
        metrics.queued.set_function(lambda: sum(model.engine.queued for model in models))

    def drain(self) -> None:
        """Take no new sessions from now on."""
        self.common.draining = True

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
        return self._model.checkpoint.description.name

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
        self._model.decoder.close()
        if self._main is self:
            await self.common.puller.close()

    async def open(self, wish: Wish, request_id: str, way: Way) -> Opened:
        """Open a session over a memory.

        Args:
            wish: What the caller asks for.
            request_id: Empty, or the same for repeated calls that mean one session.
            way: How the memory comes.

        Raises:
            SplitformerError: What `OpeningRules`, the budget and `way` raise.
            UnavailableError: DRAINING.
        """
        if not request_id:
            return await self._opened(wish, way)
        self.common.check_not_draining()
        async with self.sessions.opening(request_id) as opening:
            if not opening.done():
                opening.set_result(await self._opened(wish, way))
            return opening.result()

    async def _opened(self, wish: Wish, way: Way, named: bool = True) -> Opened:
        self.common.check_not_draining()
        start = self.rules.start_tokens(wish)
        self._opening += 1
        try:
            opened = await self._beginnings.over_memory(wish, start, way, named)
        finally:
            self._opening -= 1
        self._telemetry.model_requests.labels(self.name).inc()
        self.metrics.opened.labels(way.route).inc()
        if way.route == "upload":
            self.metrics.transfers.labels(way.route).inc()
        self.metrics.transfer_seconds.labels(way.route).observe(opened.transfer_seconds)
        self.metrics.project_seconds.observe(opened.project_seconds)
        tracing.parts(transfer=opened.transfer_seconds, project=opened.project_seconds)
        return opened

    @contextlib.asynccontextmanager
    async def one_shot(
        self,
        wish: Wish,
        way: Way,
        options: GenerationOptions,
        tokens_per_message: int,
    ) -> AsyncIterator[AsyncIterator[Yielded]]:
        """Open a session, give what its generation yields, and let the session go on leaving.

        Raises:
            SplitformerError: What `open` and `Generating.generate` raise.
        """
        session = (await self._opened(wish, way, named=False)).session
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
        self.common.check_not_draining()
        async with self.sessions.opening(request_id) as opening:
            if not opening.done():
                parent = self.sessions.get(session_id)
                opening.set_result(await self._beginnings.over_session(parent, branch))
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
        return models.fingerprint(self._model.checkpoint, self._model.numerics)

    def info(self) -> model_pb2.ModelInfo:
        """Describe the model as we run it."""
        return self._model.info

    def load(self) -> model_pb2.Load:
        """Say how busy we are."""
        return model_pb2.Load(
            queued=sum(model.engine.queued for model in self.models),
            running=sum(model.engine.running for model in self.models),
            held=sum(len(model.sessions) for model in self.models),
            capacity=self.settings.max_batch,
            used_bytes=self.budget.used,
            budget_bytes=self.budget.total,
            draining=self.common.draining,
        )

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sessions.sweep()
