"""One stream through both services, with guesses and without: what a caller of ours sees."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc

from benchmarks.measuring import Sample, in_turns
from splitformer.v1 import decoder_service_pb2 as pb, encoder_service_pb2 as enc
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub


class Text(Protocol):
    """What is to be translated."""

    @property
    def text(self) -> str: ...  # noqa: D102

    @property
    def language(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Way:
    """How a stream is asked for.

    Attributes:
        draft: Where guesses come from.
        tokens_per_message: At most; 0: one.
    """

    draft: pb.DraftMode.ValueType
    tokens_per_message: int = 0


PLAIN = Way(pb.DRAFT_MODE_OFF)
BY_TOKEN = Way(pb.DRAFT_MODE_UNSPECIFIED)
BY_STEP = Way(pb.DRAFT_MODE_UNSPECIFIED, tokens_per_message=64)
"""A message holds all tokens that a step has brought, and none is held back to fill it."""


class OneStream:
    """Both services, asked for one target at a time.

    Args:
        encoder: host:port.
        decoder: host:port.
        most_tokens: Longest target.

    Attributes:
        differing: Tokens in which two streams of one text have differed.
    """

    def __init__(self, encoder: str, decoder: str, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._encoder = EncoderServiceStub(grpc.insecure_channel(encoder))
        self._decoder = DecoderServiceStub(grpc.insecure_channel(decoder))
        self.differing = 0

    def timed(self, jobs: Sequence[Text], ways: Sequence[Way], rounds: int) -> dict[Way, Sample]:
        """Time all streams in each way; see `in_turns`."""
        told: dict[tuple[str, str], list[Any]] = {}

        def run(job: Text, way: Way) -> float:
            tokens, taken = self._stream(job, way)
            first = told.setdefault((job.text, job.language), tokens)
            self.differing += sum(a != b for a, b in zip(tokens, first, strict=False))
            self.differing += abs(len(tokens) - len(first))
            return taken

        return in_turns(jobs, ways, rounds, run)

    def _stream(self, job: Text, way: Way) -> tuple[list[Any], float]:
        """Return a stream's tokens, and the seconds from the call to the end."""
        reference = self._encoder.Encode(
            enc.EncodeRequest(
                source=enc.Source(text=job.text), delivery=enc.MEMORY_DELIVERY_REFERENCE
            )
        ).reference
        header = pb.SessionHeader(reference=reference, target_language=job.language)
        session = self._decoder.OpenSession(iter([pb.OpenSessionRequest(header=header)]))
        lease = reference.lease.lease_id
        self._encoder.ReleaseMemory(
            enc.ReleaseMemoryRequest(memory_id=reference.memory_id, lease_id=lease)
        )
        options = pb.GenerationOptions(draft=way.draft, max_new_tokens=self._most_tokens)
        request = pb.GenerateRequest(
            session_id=session.session_id,
            options=options,
            max_tokens_per_message=way.tokens_per_message,
            close_on_end=True,
        )
        began = time.perf_counter()
        parts = list(self._decoder.Generate(request))
        taken = time.perf_counter() - began
        tokens = [token for part in parts for token in part.tokens.tokens]
        return [*tokens, parts[-1].end.total_tokens, parts[-1].end.log_probability], taken
