"""The decoder service as a client sees it: memories in, sessions out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from grpc import ChannelCredentials

from splitformer import wire
from splitformer.errors import InvalidArgumentError, PermissionDeniedError
from splitformer.v1 import decoder_service_pb2 as pb, model_pb2, tensor_pb2
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer_client.convert import model_info_of
from splitformer_client.generation import AsyncGeneration
from splitformer_client.info import ModelInfo
from splitformer_client.link import Link
from splitformer_client.memory import Memory
from splitformer_client.options import GenerationOptions, TargetPrefix
from splitformer_client.retry import while_unavailable
from splitformer_client.scope import Scope
from splitformer_client.session import AsyncSession, MakeScope
from splitformer_client.settings import Settings, decoder_options
from splitformer_client.spans import Rows
from splitformer_client.writing import options_message, prefix_message, written


@dataclass(frozen=True, slots=True)
class Opening:
    """What a new session shall be.

    Attributes:
        memory: What it decodes.
        language: Target language; empty if the memory is bound to one or the model has none.
        target_prefix: Text or token ids that the target starts with.
        request_id: Makes the opening idempotent; None: drawn once for all attempts.
        max_positions: Positions to reserve room for; 0: as many as the model has.
        task: What a model of speech is to write, "transcribe" or "translate"; empty: other models.
        timestamps: Let it mark times.

    Raises:
        InvalidArgumentError: An unknown task, or times without one.
    """

    memory: Memory
    language: str = ""
    target_prefix: TargetPrefix | None = None
    request_id: str | None = None
    max_positions: int = 0
    task: str = ""
    timestamps: bool = False

    def __post_init__(self) -> None:
        if self.task not in _TASKS:
            known = ", ".join(filter(None, _TASKS))
            raise InvalidArgumentError.of("task", f"must be one of {known}", self.task)
        if self.timestamps and not self.task:
            raise InvalidArgumentError.of("timestamps", "needs a task", self.timestamps)

    def header(self, model: str, request_id: str) -> pb.SessionHeader:
        """Write it as the protocol's message."""
        memory = self.memory
        return written(
            pb.SessionHeader,
            model=model,
            request_id=request_id,
            target_language=self.language,
            upload=memory.header if memory.is_local else None,
            reference=None if memory.is_local else memory.reference,
            target_prefix=prefix_message(self.target_prefix),
            max_positions=self.max_positions,
            speech=self._speech,
        )

    @property
    def _speech(self) -> pb.SpeechOptions | None:
        task = _TASKS[self.task]
        return pb.SpeechOptions(task=task, timestamps=self.timestamps) if task else None


_TASKS = {
    "": model_pb2.SPEECH_TASK_UNSPECIFIED,
    "transcribe": model_pb2.SPEECH_TASK_TRANSCRIBE,
    "translate": model_pb2.SPEECH_TASK_TRANSLATE,
}


class Decoder:
    """RPCs of the decoder service.

    Args:
        settings: Addresses, model and limits.
        make_scope: Starts the scope of each operation on a session.
        credentials: For TLS; None: without.
    """

    def __init__(
        self, settings: Settings, make_scope: MakeScope, credentials: ChannelCredentials | None
    ) -> None:
        self._settings = settings
        self._make_scope = make_scope
        self._credentials = credentials
        self._home = self._link(settings.decoder)
        self._links = {settings.decoder: self._home, "": self._home}

    async def info(self, scope: Scope) -> ModelInfo:
        """Describe the model."""
        request = pb.DecoderServiceGetModelInfoRequest(model=self._settings.model)
        method = DecoderServiceStub(self._home.channel).GetModelInfo
        return model_info_of((await self._home.call(method, request, scope)).model)

    async def open_session(self, opening: Opening, scope: Scope) -> AsyncSession:
        """Open a session, with several attempts while the decoder is unavailable.

        Raises:
            PermissionDeniedError: ENDPOINT_NOT_ALLOWED, the reply points to a server that the
                settings do not allow.
        """
        header = opening.header(self._settings.model, opening.request_id or uuid.uuid4().hex)

        async def attempt() -> pb.OpenSessionResponse:
            method = DecoderServiceStub(self._home.channel).OpenSession
            return await self._home.upload(method, self._uploaded(header, opening.memory), scope)

        reply = await while_unavailable(attempt, self._settings.upload_attempts, scope)
        language = reply.target_language or opening.language
        link, rows = self._link_to(reply.endpoint), Rows(opening.memory.header)
        return AsyncSession(link, reply, language, self._make_scope, rows)

    def decode(
        self,
        opening: Opening,
        options: GenerationOptions,
        max_tokens_per_message: int,
        scope: Scope,
    ) -> AsyncGeneration:
        """Decode a memory in one call, with no session to close; the opening has no id."""
        header = written(
            pb.DecodeHeader,
            session=opening.header(self._settings.model, ""),
            options=options_message(options),
            max_tokens_per_message=max_tokens_per_message,
        )
        method = DecoderServiceStub(self._home.channel).Decode
        requests = self._one_shot(header, opening.memory)
        rows = Rows(opening.memory.header)
        return AsyncGeneration(self._home.exchange(method, requests, scope), rows)

    async def close(self) -> None:
        """Close all channels."""
        for link in self._links.values():
            await link.close()

    async def _uploaded(
        self, header: pb.SessionHeader, memory: Memory
    ) -> AsyncIterator[pb.OpenSessionRequest]:
        """The messages of an opening: the header, and the chunks of a local memory."""
        yield pb.OpenSessionRequest(header=header)
        for chunk in self._chunks(memory):
            yield pb.OpenSessionRequest(chunk=chunk)

    async def _one_shot(
        self, header: pb.DecodeHeader, memory: Memory
    ) -> AsyncIterator[pb.DecodeRequest]:
        """The messages of a one-shot, likewise."""
        yield pb.DecodeRequest(header=header)
        for chunk in self._chunks(memory):
            yield pb.DecodeRequest(chunk=chunk)

    def _chunks(self, memory: Memory) -> Iterator[tensor_pb2.MemoryChunk]:
        """The chunks of a local memory; none of a referenced one."""
        return wire.chunks_of(memory.data or b"", self._settings.chunk_bytes)

    def _link_to(self, endpoint: str) -> Link:
        if endpoint in self._links:
            return self._links[endpoint]
        if not self._settings.allows(endpoint):
            raise PermissionDeniedError(
                f"endpoint: the decoder sent this client to {endpoint!r}, which is not within"
                f" allowed_endpoint_suffixes {list(self._settings.allowed_endpoint_suffixes)}",
                reason="ENDPOINT_NOT_ALLOWED",
                metadata={"endpoint": endpoint},
            )
        self._links[endpoint] = self._link(endpoint)
        return self._links[endpoint]

    def _link(self, address: str) -> Link:
        return Link("decoder", address, decoder_options(), self._credentials)
