"""Audio over the wire, by the bare stubs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from encoder_service.service import EncoderService
from splitformer import statuses
from splitformer.errors import SplitformerError
from splitformer.v1 import encoder_service_pb2 as pb
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from tests.support.servers import Running
from tests.support.sounds import RATE
from tests.support.waiting import comes_true

PCM = pb.AudioHeader(encoding=pb.AUDIO_ENCODING_PCM_F32LE, sample_rate=RATE, channels=1)


@contextlib.contextmanager
def talking(encoder: Running[EncoderService]) -> Iterator[EncoderServiceStub]:
    with grpc.insecure_channel(encoder.address) as channel:
        yield EncoderServiceStub(channel)


def request(**part: Any) -> pb.EncodeAudioRequest:
    return pb.EncodeAudioRequest(**part)


def seek(seconds: float) -> pb.EncodeAudioRequest:
    return request(seek=pb.AudioSeek(start_seconds=seconds))


def answers(
    encoder: Running[EncoderService], *requests: pb.EncodeAudioRequest
) -> list[pb.EncodeAudioResponse]:
    """Send everything at once and close; failures are exceptions of ours."""
    with talking(encoder) as stub:
        try:
            return list(stub.EncodeAudio(iter(requests), timeout=60))
        except grpc.RpcError as error:
            raise raised(error) from None


def raised(error: Any) -> SplitformerError:
    details = dict(error.trailing_metadata())[statuses.DETAILS_KEY]
    return statuses.error_of(int(error.code().value[0]), error.details(), details)


def release(encoder: Running[EncoderService], window: pb.AudioWindow) -> None:
    reference = window.reference
    encoder.service.store.release(reference.memory_id, reference.lease.lease_id)


def become_true(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds: servers learn a moment later that a caller has left."""
    asyncio.run(comes_true(condition))
