"""The encoder service as a client sees it: sources in, memories out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

from grpc import ChannelCredentials

from splitformer import wire
from splitformer.errors import DataLossError, FailedPreconditionError, InvalidArgumentError
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from splitformer_client.audio import Audio, AudioForm
from splitformer_client.bulk import AsyncEncoding
from splitformer_client.convert import model_info_of
from splitformer_client.info import ModelInfo
from splitformer_client.link import Incoming, Link
from splitformer_client.listening import Listening, listening
from splitformer_client.memory import Memory
from splitformer_client.scope import REPLICA_KEY, Metadata, Scope
from splitformer_client.settings import Settings, encoder_options
from splitformer_client.writing import milliseconds, token_ids, written

Delivery = Literal["auto", "inline", "reference"]
Pooling = Literal["auto", "mean", "cls"]

T = TypeVar("T")
Part = TypeVar("Part", pb.StreamEncodeResponse, pb.FetchMemoryResponse)

_DELIVERIES = {
    "auto": pb.MEMORY_DELIVERY_UNSPECIFIED,
    "inline": pb.MEMORY_DELIVERY_INLINE,
    "reference": pb.MEMORY_DELIVERY_REFERENCE,
}
_POOLINGS = {
    "auto": pb.POOLING_UNSPECIFIED,
    "mean": pb.POOLING_MEAN,
    "cls": pb.POOLING_CLS,
}


class Encoder:
    """RPCs of the encoder service. Every method takes the scope of the operation it is part of.

    Args:
        settings: Addresses, model and limits.
        credentials: For TLS; None: without.
    """

    def __init__(self, settings: Settings, credentials: ChannelCredentials | None) -> None:
        self._settings = settings
        self._credentials = credentials
        self._links = {settings.encoder: self._link(settings.encoder)}
        self._info: ModelInfo | None = None

    async def info(self, scope: Scope) -> ModelInfo:
        """Describe the model."""
        link = self._links[self._settings.encoder]
        request = pb.EncoderServiceGetModelInfoRequest(model=self._settings.model)
        answer = await link.call(EncoderServiceStub(link.channel).GetModelInfo, request, scope)
        self._info = model_info_of(answer.model)
        return self._info

    async def known_info(self, scope: Scope) -> ModelInfo:
        """Describe the model as it was when first asked; what `translate` needs does not change."""
        return self._info or await self.info(scope)

    async def encode(
        self, source: pb.Source, delivery: Delivery, lease_seconds: float, scope: Scope
    ) -> Memory:
        """Encode one source; `lease_seconds` 0 is the server's default."""
        link = self._links[self._settings.encoder]
        request = self._request(source, delivery, lease_seconds)
        return Memory.of_answer(
            await link.call(EncoderServiceStub(link.channel).Encode, request, scope)
        )

    def encode_many(
        self,
        sources: Iterable[T] | AsyncIterable[T],
        source_of_one: Callable[[T], pb.Source],
        delivery: Delivery,
        lease_seconds: float,
        in_flight: int,
        scope: Scope,
    ) -> AsyncEncoding:
        """Encode many sources on one stream; see `AsyncEncoding`."""
        link = self._links[self._settings.encoder]
        return AsyncEncoding(
            lambda requests: link.exchange(
                EncoderServiceStub(link.channel).EncodeBatch, requests, scope
            ),
            sources,
            lambda source: self._request(source_of_one(source), delivery, lease_seconds),
            in_flight,
        )

    def _request(
        self, source: pb.Source, delivery: Delivery, lease_seconds: float
    ) -> pb.EncodeRequest:
        if delivery not in _DELIVERIES:
            raise InvalidArgumentError.of(
                "delivery", f"must be one of {sorted(_DELIVERIES)}", delivery
            )
        return written(
            pb.EncodeRequest,
            model=self._settings.model,
            source=source,
            delivery=_DELIVERIES[delivery],
            lease_ms=milliseconds(lease_seconds, "lease"),
        )

    async def stream_encode(self, source: pb.Source, scope: Scope) -> Memory:
        """Encode one source and receive the memory in chunks, whatever its size."""
        link = self._links[self._settings.encoder]
        request = pb.StreamEncodeRequest(
            model=self._settings.model, source=source, chunk_bytes=self._settings.chunk_bytes
        )
        messages = link.stream(EncoderServiceStub(link.channel).StreamEncode, request, scope)
        return await _received(messages, (await _first(messages)).header)

    async def embed(self, source: pb.Source, pooling: Pooling, scope: Scope) -> wire.FloatArray:
        """Encode one source and return its pooled vector, (D,)."""
        if pooling not in _POOLINGS:
            raise InvalidArgumentError.of("pooling", f"must be one of {sorted(_POOLINGS)}", pooling)
        link = self._links[self._settings.encoder]
        request = pb.EmbedRequest(
            model=self._settings.model, source=source, pooling=_POOLINGS[pooling]
        )
        vector = (await link.call(EncoderServiceStub(link.channel).Embed, request, scope)).vector
        return wire.unpack(wire.tensor_bytes(vector), vector.dtype, vector.shape, "vector")

    def listening(
        self, audio: Audio, form: AudioForm, scope: Scope
    ) -> contextlib.AbstractAsyncContextManager[Listening]:
        """Open a stream for an audio, whose windows are encoded as they are asked for."""
        link = self._links[self._settings.encoder]
        return listening(link, audio, form, self._settings.model, scope)

    async def fetch(self, memory: Memory, scope: Scope) -> Memory:
        """Bring the numbers of a referenced memory here; the lease of the fetch is ended again."""
        reference = _reference(memory)
        link = self._link_of(reference)
        request = pb.FetchMemoryRequest(
            memory_id=reference.memory_id, chunk_bytes=self._settings.chunk_bytes
        )
        method = EncoderServiceStub(link.channel).FetchMemory
        messages = link.stream(method, request, scope, _replica(reference))
        first = (await _first(messages)).header
        try:
            return await _received(messages, first.header)
        finally:
            await self._release(reference, first.lease.lease_id, scope)

    async def renew(self, memory: Memory, lease_seconds: float, scope: Scope) -> Memory:
        """Prolong the lease of a referenced memory, from now on."""
        reference = _reference(memory)
        link = self._link_of(reference)
        request = written(
            pb.RenewLeaseRequest,
            memory_id=reference.memory_id,
            lease_id=reference.lease.lease_id,
            lease_ms=milliseconds(lease_seconds, "lease"),
        )
        method = EncoderServiceStub(link.channel).RenewLease
        answer = await link.call(method, request, scope, _replica(reference))
        renewed = tensor_pb2.MemoryReference()
        renewed.CopyFrom(reference)
        renewed.lease.CopyFrom(answer.lease)
        return Memory(memory.header, memory.data, renewed)

    async def release(self, memory: Memory, scope: Scope) -> int:
        """End the lease of a referenced memory; returns how many leases of others still hold it."""
        reference = _reference(memory)
        return await self._release(reference, reference.lease.lease_id, scope)

    async def close(self) -> None:
        """Close all channels."""
        for link in self._links.values():
            await link.close()

    async def _release(
        self, reference: tensor_pb2.MemoryReference, lease_id: str, scope: Scope
    ) -> int:
        link = self._link_of(reference)
        request = pb.ReleaseMemoryRequest(memory_id=reference.memory_id, lease_id=lease_id)
        method = EncoderServiceStub(link.channel).ReleaseMemory
        answer = await link.call(method, request, scope, _replica(reference))
        return answer.remaining_leases

    def _link_of(self, reference: tensor_pb2.MemoryReference) -> Link:
        """The encoder that holds a memory if it may be dialled, else the configured address.

        The endpoint is meant for decoders and need not be within the client's reach.
        """
        if not self._settings.allows(reference.endpoint):
            return self._links[self._settings.encoder]
        return self._links.setdefault(reference.endpoint, self._link(reference.endpoint))

    def _link(self, address: str) -> Link:
        return Link("encoder", address, encoder_options(), self._credentials)


def source_of(
    source: str | Sequence[int], language: str = "", target_language: str = ""
) -> pb.Source:
    """Write a source, text or token ids, as the protocol's message."""
    languages = {"language": language, "target_language": target_language}
    if isinstance(source, str):
        return written(pb.Source, "source.", text=source, **languages)
    return written(pb.Source, "source.", tokens=token_ids(source, "source"), **languages)


def _reference(memory: Memory) -> tensor_pb2.MemoryReference:
    if memory.reference is None:
        raise FailedPreconditionError(
            "memory: is local, there is no lease to act on", reason="MEMORY_IS_LOCAL"
        )
    return memory.reference


def _replica(reference: tensor_pb2.MemoryReference) -> Metadata:
    """Metadata that lets a proxy route a call to the encoder that holds the memory."""
    return ((REPLICA_KEY, reference.endpoint),) if reference.endpoint else ()


async def _first(messages: Incoming[Any, Part]) -> Part:
    """Receive the message with the header."""
    async for message in messages:
        return message
    raise DataLossError("memory: the stream ended before its header", reason="MEMORY_TRUNCATED")


async def _received(messages: Incoming[Any, Part], header: tensor_pb2.MemoryHeader) -> Memory:
    """Receive the chunks that follow a header.

    Raises:
        DataLossError: CORRUPT_CHUNK or MEMORY_TRUNCATED.
    """
    shape = wire.checked_shape(header.dtype, header.shape, "memory")
    assembler = wire.ChunkAssembler(wire.packed_bytes(header.dtype, shape))
    async for message in messages:
        if message.HasField("chunk"):
            assembler.add(message.chunk)
    return Memory(header, assembler.finish())
