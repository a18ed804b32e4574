"""Between the protocol and the decoder service; nothing else happens here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from grpc import aio

from decoder_service import messages, reading
from decoder_service.answers import Ended
from decoder_service.beginnings import Way
from decoder_service.service import DecoderService
from decoder_service.sessions import Opened, Record, Session
from decoder_service.uploading import Requests, Upload
from splitformer.errors import InvalidArgumentError, check_all
from splitformer.generation import Produced
from splitformer.v1 import decoder_service_pb2 as pb
from splitformer.v1.decoder_service_pb2_grpc import (
    DecoderServiceServicer,
    add_DecoderServiceServicer_to_server,
)

Context = aio.ServicerContext[Any, Any]


class DecoderServicer(DecoderServiceServicer):
    """Answers `splitformer.v1.DecoderService`; what it lacks is UNIMPLEMENTED."""

    def __init__(self, service: DecoderService) -> None:
        self._service = service

    async def OpenSession(
        self, request_iterator: AsyncIterator[pb.OpenSessionRequest], context: Context
    ) -> pb.OpenSessionResponse:
        """Open a session over a memory that is streamed up or pulled from its encoder."""
        header = await _first_header(request_iterator)
        service = self._service.models.named(header.model)
        way = self._way(header, request_iterator)
        opened = await service.open(reading.wish_of(header), header.request_id, way)
        return _opened(service, opened)

    async def Decode(
        self, request_iterator: AsyncIterator[pb.DecodeRequest], context: Context
    ) -> AsyncIterator[pb.DecodeResponse]:
        """Take a memory as `OpenSession` does, stream tokens, then the end; nothing stays."""
        header = await _first_header(request_iterator)
        options, most, _ = check_all(
            lambda: reading.options_of(header.options),
            lambda: reading.tokens_per_message(header.max_tokens_per_message),
            lambda: reading.check_one_shot(header.session),
        )
        way = self._way(header.session, request_iterator)
        wish = reading.wish_of(header.session)
        service = self._service.models.named(header.session.model)
        async with service.one_shot(wish, way, options, most) as parts:
            async for part in parts:
                yield messages.part_message(part, pb.DecodeResponse())

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncIterator[pb.GenerateResponse]:
        """Stream tokens, then the end."""
        options, most = check_all(
            lambda: reading.options_of(request.options),
            lambda: reading.tokens_per_message(request.max_tokens_per_message),
        )
        start = request.start_index if request.HasField("start_index") else None
        parts = self._holding(request).generating.generate(
            request.session_id, options, start, most, request.close_on_end
        )
        async with aclosing(parts):
            async for part in parts:
                yield messages.part_message(part, pb.GenerateResponse())

    async def Interact(
        self, request_iterator: AsyncIterator[pb.InteractRequest], context: Context
    ) -> AsyncIterator[pb.InteractResponse]:
        """Stream tokens of a loop that is steered meanwhile, and every end it comes to."""
        parts = self._service.steering.parts(reading.steers_of(request_iterator))
        async with aclosing(parts):
            async for part in parts:
                yield messages.interact_message(part)

    async def Step(self, request: pb.StepRequest, context: Context) -> pb.StepResponse:
        """Return one token, or the end."""
        index, options = check_all(
            lambda: reading.step_index(request), lambda: reading.options_of(request.options)
        )
        forced = request.forced_token if request.HasField("forced_token") else None
        part = await self._holding(request).generating.step(
            request.session_id, index, options, forced
        )
        if isinstance(part, Ended):
            return pb.StepResponse(end=messages.end_message(part))
        return pb.StepResponse(token=messages.token_message(part))

    async def Score(self, request: pb.ScoreRequest, context: Context) -> pb.ScoreResponse:
        """Say how probable a given target is."""
        given = reading.given_target(request)
        scored = await self._holding(request).scorer.score(
            request.session_id, given, request.include_end
        )
        return messages.score_message(scored)

    async def ForkSession(
        self, request: pb.ForkSessionRequest, context: Context
    ) -> pb.ForkSessionResponse:
        """Open a session over the memory of another one."""
        service = self._holding(request)
        opened = await service.fork(
            request.session_id, request.request_id, reading.branch_of(request)
        )
        return pb.ForkSessionResponse(session=_opened(service, opened))

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """Describe a session, or what is remembered of one."""
        service = self._holding(request)
        record = service.sessions.record(request.session_id)
        if record is not None:
            return _recorded(service, request.session_id, record)
        return _described(service, service.sessions.get(request.session_id))

    async def CloseSession(
        self, request: pb.CloseSessionRequest, context: Context
    ) -> pb.CloseSessionResponse:
        """Let a session go; a generation that runs on it is stopped."""
        freed = self._holding(request).close_session(request.session_id)
        return pb.CloseSessionResponse(freed_bytes=freed)

    async def GetModelInfo(
        self, request: pb.DecoderServiceGetModelInfoRequest, context: Context
    ) -> pb.DecoderServiceGetModelInfoResponse:
        """Describe the model."""
        service = self._service.models.named(request.model)
        return pb.DecoderServiceGetModelInfoResponse(model=service.info())

    async def GetLoad(
        self, request: pb.DecoderServiceGetLoadRequest, context: Context
    ) -> pb.DecoderServiceGetLoadResponse:
        """Say how busy the service is."""
        return pb.DecoderServiceGetLoadResponse(load=self._service.load())

    def _way(self, header: pb.SessionHeader, requests: Requests) -> Way:
        """Check where a memory comes from; return how it comes."""
        source = header.WhichOneof("memory")
        if source is None:
            raise InvalidArgumentError.of(
                "header.memory", "must be an upload or a reference", None, reason="NO_MEMORY"
            )
        if source == "reference":
            self._service.common.puller.check_endpoint(header.reference.endpoint)
            return Way(source, partial(self._service.common.puller.pull, header.reference))
        upload = Upload(header.upload, requests, self._service.settings.fetch_seconds)
        return Way(source, upload.take, upload.end)

    def _holding(self, request: Any) -> DecoderService:
        """Return the service of a session's model."""
        return self._service.holding(request.session_id)


def _opened(service: DecoderService, opened: Opened) -> pb.OpenSessionResponse:
    return pb.OpenSessionResponse(
        session_id=opened.session.id,
        endpoint=service.common.endpoint,
        replica=service.common.replica,
        idle_timeout_ms=int(service.settings.idle_seconds * 1000),
        size_bytes=opened.session.size_bytes,
        model=service.name,
        fingerprint=service.fingerprint,
        timings=pb.OpenTimings(
            transfer_seconds=opened.transfer_seconds, project_seconds=opened.project_seconds
        ),
        target_language=opened.session.language,
    )


def _described(service: DecoderService, session: Session) -> pb.GetSessionResponse:
    target = session.target
    running, ended = session.generation is not None, target.end is not None
    state = pb.SESSION_STATE_ENDED if ended else pb.SESSION_STATE_IDLE
    return pb.GetSessionResponse(
        session_id=session.id,
        state=pb.SESSION_STATE_RUNNING if running else state,
        model=service.name,
        target_language=session.language,
        tokens=len(target.produced),
        text=_text(target.produced, target.end),
        source_positions=session.source_positions,
        size_bytes=session.size_bytes,
        expires_in_ms=int(service.sessions.expires_in(session) * 1000),
    )


def _recorded(service: DecoderService, session_id: str, record: Record) -> pb.GetSessionResponse:
    return pb.GetSessionResponse(
        session_id=session_id,
        state=pb.SESSION_STATE_CLOSED,
        model=service.name,
        target_language=record.language,
        tokens=len(record.produced),
        text=_text(record.produced, record.ended),
        source_positions=record.source_positions,
    )


def register(service: DecoderService, server: aio.Server) -> None:
    """Let a server answer for the service."""
    add_DecoderServiceServicer_to_server(DecoderServicer(service), server)


async def _first_header(requests: AsyncIterator[Any]) -> Any:
    """Return the header of an opening or a one-shot."""
    async for request in requests:
        if request.WhichOneof("part") != "header":
            break
        return request.header
    raise InvalidArgumentError.of(
        "header", "must be the first message of the stream", None, reason="NO_HEADER"
    )


def _text(produced: list[Produced] | tuple[Produced, ...], end: Produced | None) -> str:
    return "".join(token.text for token in produced) + (end.text if end else "")
