"""Between the protocol and the encoder service; nothing else happens here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import aclosing
from functools import partial
from typing import Any

from grpc import aio

from encoder_service.audio_stream import AudioStream, form_of
from encoder_service.batch_stream import BatchStream
from encoder_service.pooling import check_pooling, pooled
from encoder_service.service import EncodedSource, EncoderService
from encoder_service.sources import TokenizedSource
from encoder_service.store import StoredMemory
from splitformer import wire
from splitformer.errors import InvalidArgumentError, ResourceExhaustedError
from splitformer.framing import chunk_messages
from splitformer.model.audio.track import Window
from splitformer.serving.callers import caller_of
from splitformer.v1 import encoder_service_pb2 as pb, tensor_pb2
from splitformer.v1.encoder_service_pb2_grpc import (
    EncoderServiceServicer,
    add_EncoderServiceServicer_to_server,
)

Context = aio.ServicerContext[Any, Any]

_DELIVERIES = frozenset(pb.MemoryDelivery.values())


class EncoderServicer(EncoderServiceServicer):
    """Answers `splitformer.v1.EncoderService`; what it lacks is UNIMPLEMENTED."""

    def __init__(self, service: EncoderService) -> None:
        self._service = service

    async def Encode(self, request: pb.EncodeRequest, context: Context) -> pb.EncodeResponse:
        """Encode one source; return the memory inline or keep it under a lease."""
        return await self._answer(caller_of(context), request)

    async def EncodeBatch(
        self, request_iterator: AsyncIterator[pb.EncodeBatchRequest], context: Context
    ) -> AsyncIterator[pb.EncodeBatchResponse]:
        """Encode many sources, answering each as it finishes."""
        most = self._service.settings.max_stream_sources
        answers = BatchStream(partial(self._answer, caller_of(context), bulk=True), most).run(
            request_iterator
        )
        async with aclosing(answers):
            async for answer in answers:
                yield answer

    async def EncodeAudio(
        self, request_iterator: AsyncIterator[pb.EncodeAudioRequest], context: Context
    ) -> AsyncIterator[pb.EncodeAudioResponse]:
        """Take audio up, and encode the windows that are asked for."""
        header = await _audio_header(request_iterator)
        own = self._of(header.model)
        service = own._service
        lease = service.lease_seconds(header.lease_ms)
        encode = partial(own._window, caller=caller_of(context), lease=lease)
        with service.audio_stream():
            idle = service.settings.audio_idle_seconds
            stream = AudioStream(form_of(header), service.sources.features, encode, idle)
            async with aclosing(stream.run(request_iterator)) as answers:
                async for answer in answers:
                    yield answer

    async def StreamEncode(
        self, request: pb.StreamEncodeRequest, context: Context
    ) -> AsyncIterator[pb.StreamEncodeResponse]:
        """Encode one source and stream its memory."""
        size, own = self._chunk_bytes(request.chunk_bytes), self._of(request.model)
        service, tokenized = own._service, own._tokenized(request.source)
        with service.store.room(service.memory_bytes(len(tokenized.pieces))):
            source = await service.encode(tokenized, not request.omit_source_tokens)
            yield pb.StreamEncodeResponse(header=source.header)
            data, count = memoryview(source.encoded.memory.data), 0
            for message in chunk_messages(pb.StreamEncodeResponse, data, size):
                yield message
                count += 1
        self._service.metrics.sent_bytes.inc(len(data))
        trailer = pb.MemoryTrailer(total_bytes=len(data), chunks=count, timings=_timings(source))
        yield pb.StreamEncodeResponse(trailer=trailer)

    async def FetchMemory(
        self, request: pb.FetchMemoryRequest, context: Context
    ) -> AsyncIterator[pb.FetchMemoryResponse]:
        """Grant the caller a lease and stream a kept memory."""
        size = self._chunk_bytes(request.chunk_bytes)
        seconds = self._service.lease_seconds(request.lease_ms)
        store, shown = self._service.store, (caller_of(context), request.lease_id)
        memory: StoredMemory = store.get(request.memory_id, *shown)
        lease = store.grant(request.memory_id, seconds, *shown)
        yield pb.FetchMemoryResponse(header=self._fetched(memory, lease))
        data, count = memoryview(memory.segment.data), 0
        for message in chunk_messages(pb.FetchMemoryResponse, data, size):
            yield message
            count += 1
        self._service.metrics.sent_bytes.inc(len(data))
        trailer = pb.MemoryTrailer(total_bytes=len(data), chunks=count)
        yield pb.FetchMemoryResponse(trailer=trailer)

    async def RenewLease(
        self, request: pb.RenewLeaseRequest, context: Context
    ) -> pb.RenewLeaseResponse:
        """Prolong a lease."""
        seconds = self._service.lease_seconds(request.lease_ms)
        lease = self._service.store.renew(
            request.memory_id, request.lease_id, seconds, caller_of(context)
        )
        return pb.RenewLeaseResponse(lease=lease)

    async def ReleaseMemory(
        self, request: pb.ReleaseMemoryRequest, context: Context
    ) -> pb.ReleaseMemoryResponse:
        """End a lease."""
        remaining = self._service.store.release(
            request.memory_id, request.lease_id, caller_of(context)
        )
        return pb.ReleaseMemoryResponse(remaining_leases=remaining)

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        """Encode one source and pool its memory, which is not kept."""
        check_pooling(request.pooling)
        own = self._of(request.model)
        service, tokenized = own._service, own._tokenized(request.source)
        with service.store.room(service.memory_bytes(len(tokenized.pieces))):
            source = await service.encode(tokenized, keep_pieces=False)
        vector = pooled(source.header, source.encoded.memory.data)
        return pb.EmbedResponse(vector=vector, timings=_timings(source))

    async def GetModelInfo(
        self, request: pb.EncoderServiceGetModelInfoRequest, context: Context
    ) -> pb.EncoderServiceGetModelInfoResponse:
        """Describe the model."""
        service = self._service.models.named(request.model)
        return pb.EncoderServiceGetModelInfoResponse(model=service.info())

    async def GetLoad(
        self, request: pb.EncoderServiceGetLoadRequest, context: Context
    ) -> pb.EncoderServiceGetLoadResponse:
        """Say how busy the service is."""
        return pb.EncoderServiceGetLoadResponse(load=self._service.load())

    def _of(self, model: str) -> EncoderServicer:
        """Return a model's own servicer; NotFoundError MODEL_NOT_FOUND."""
        return EncoderServicer(self._service.models.named(model))

    async def _answer(
        self, caller: str, request: pb.EncodeRequest, bulk: bool = False
    ) -> pb.EncodeResponse:
        return await self._of(request.model)._encoded(caller, request, bulk)

    async def _encoded(
        self, caller: str, request: pb.EncodeRequest, bulk: bool
    ) -> pb.EncodeResponse:
        """Encode one source, once it is clear that its memory may come back as asked for.

        A caller who has proved an identity, and still has the same source's memory kept, gets
        another lease on that one.
        """
        service = self._service
        _check_delivery(request.delivery)
        lease = service.lease_seconds(request.lease_ms)
        tokenized = self._tokenized(request.source)
        size = service.memory_bytes(len(tokenized.pieces))
        inline = self._inline(request.delivery, size)
        keep_pieces = not request.omit_source_tokens
        key = (
            (caller, service.fingerprint, tokenized.key, keep_pieces)
            if caller and not inline
            else None
        )
        if key is not None and (memory_id := service.store.find(key)) is not None:
            service.metrics.reused_sources.inc()
            return pb.EncodeResponse(reference=self._another(caller, memory_id, lease))
        with service.store.room(size):
            source = await service.encode(tokenized, keep_pieces, bulk, keep=not inline)
            response = pb.EncodeResponse(timings=_timings(source))
            if inline:
                response.inline.CopyFrom(self._inline_memory(source))
            else:
                response.reference.CopyFrom(self._keep(source, lease, key, caller))
        return response

    async def _window(self, window: Window, caller: str, lease: float) -> pb.AudioWindow:
        """Encode a window of audio and keep its memory."""
        service = self._service
        heard = await service.sources.hear(window.samples)
        with service.store.room(service.memory_bytes(len(heard.given))):
            source = await service.encode(heard, keep_pieces=False, keep=True)
            reference = self._keep(source, lease, None, caller)
        rate = service.sources.features.sample_rate
        return pb.AudioWindow(
            start_seconds=window.start / rate,
            duration_seconds=len(window.samples) / rate,
            reference=reference,
            last=window.last,
            timings=_timings(source),
        )

    def _tokenized(self, source: pb.Source) -> TokenizedSource:
        """Return a source's tokens."""
        service = self._service
        service.sources.check_takes_text()
        form = source.WhichOneof("form")
        if form == "text":
            return service.sources.tokenize(source.text, source.language, source.target_language)
        if form == "tokens":
            ids = source.tokens.ids
            return service.sources.accept_tokens(ids, source.language, source.target_language)
        raise InvalidArgumentError.of(
            "source", "must hold text or tokens", None, reason="EMPTY_SOURCE"
        )

    def _inline(self, delivery: pb.MemoryDelivery.ValueType, size: int) -> bool:
        limit = self._service.settings.inline_bytes
        if delivery == pb.MEMORY_DELIVERY_INLINE and size > limit:
            raise ResourceExhaustedError(
                f"delivery: an inline memory must hold at most {limit} bytes, got {size};"
                " ask for a reference or use StreamEncode",
                reason="MEMORY_TOO_LARGE",
            )
        return delivery != pb.MEMORY_DELIVERY_REFERENCE and size <= limit

    def _inline_memory(self, source: EncodedSource) -> pb.InlineMemory:
        header, data = source.header, source.encoded.memory.data
        self._service.metrics.sent_bytes.inc(len(data))
        tensor = wire.tensor_message(data, header.dtype, header.shape)
        return pb.InlineMemory(header=header, tensor=tensor)

    def _keep(
        self, source: EncodedSource, seconds: float, key: Hashable, owner: str
    ) -> tensor_pb2.MemoryReference:
        memory_id, lease = self._service.store.put_into_room(
            source.header, source.encoded.memory, seconds, key, owner
        )
        return self._reference(memory_id, source.header, lease)

    def _another(self, owner: str, memory_id: str, seconds: float) -> tensor_pb2.MemoryReference:
        """Refer to a memory that is kept already, under a new lease."""
        store = self._service.store
        lease = store.share(memory_id, seconds, owner)
        return self._reference(memory_id, store.get(memory_id, owner).header, lease)

    def _reference(
        self, memory_id: str, header: tensor_pb2.MemoryHeader, lease: tensor_pb2.Lease
    ) -> tensor_pb2.MemoryReference:
        return tensor_pb2.MemoryReference(
            memory_id=memory_id, endpoint=self._service.endpoint, header=header, lease=lease
        )

    def _fetched(self, memory: StoredMemory, lease: tensor_pb2.Lease) -> pb.FetchedHeader:
        """What a fetch begins with; says where later ones need no fetch."""
        sharing = self._service.sharing
        return pb.FetchedHeader(
            header=memory.header, lease=lease, shared=sharing.offer if sharing else None
        )

    def _chunk_bytes(self, requested: int) -> int:
        largest = self._service.settings.max_message_bytes // 2
        if not 0 <= requested <= largest:
            raise InvalidArgumentError.of(
                "chunk_bytes", f"must be 0 to {largest}", requested, reason="BAD_CHUNK_SIZE"
            )
        return requested or self._service.settings.chunk_bytes


async def _audio_header(requests: AsyncIterator[pb.EncodeAudioRequest]) -> pb.AudioHeader:
    """Receive an audio stream's first message."""
    async for request in requests:
        if request.HasField("header"):
            return request.header
        break
    raise InvalidArgumentError.of("header", "must come first", None, reason="NO_HEADER")


def _check_delivery(delivery: int) -> None:
    if delivery not in _DELIVERIES:
        raise InvalidArgumentError.of(
            "delivery", "must be a MemoryDelivery", delivery, reason="BAD_DELIVERY"
        )


def _timings(source: EncodedSource) -> pb.EncodeTimings:
    return pb.EncodeTimings(
        queue_seconds=source.encoded.queue_seconds,
        tokenize_seconds=source.tokenize_seconds,
        encode_seconds=source.encoded.encode_seconds,
    )


def register(service: EncoderService, server: aio.Server) -> None:
    """Let a server answer for the service."""
    add_EncoderServiceServicer_to_server(EncoderServicer(service), server)
