"""One stream through both services, with guesses and without: what a caller of ours sees."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from typing import Any, Protocol

import grpc

from splitformer.v1 import decoder_service_pb2 as pb, encoder_service_pb2 as enc
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub


class Text(Protocol):
    """What is to be translated."""

    @property
    def text(self) -> str: ...  # noqa: D102

    @property
    def language(self) -> str: ...  # noqa: D102


class OneStream:
    """Both services, asked for one target at a time.

    Args:
        encoder: host:port.
        decoder: host:port.
        most_tokens: Longest target.

    Attributes:
        differing: Tokens in which streams with guesses and without have differed.
    """

    def __init__(self, encoder: str, decoder: str, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._encoder = EncoderServiceStub(grpc.insecure_channel(encoder))
        self._decoder = DecoderServiceStub(grpc.insecure_channel(decoder))
        self._chance = random.Random(0)
        self.differing = 0

    def speedup(self, jobs: Sequence[Text], rounds: int) -> float:
        """How many times faster streams are with guesses: the median of the rounds' ratios."""
        ratios = []
        for _ in range(rounds):
            seconds = {pb.DRAFT_MODE_OFF: 0.0, pb.DRAFT_MODE_UNSPECIFIED: 0.0}
            for job in jobs:
                heard = []
                for draft in self._chance.sample(list(seconds), 2):
                    tokens, taken = self._stream(job, draft)
                    seconds[draft] += taken
                    heard.append(tokens)
                self.differing += sum(a != b for a, b in zip(*heard, strict=False))
            ratios.append(seconds[pb.DRAFT_MODE_OFF] / seconds[pb.DRAFT_MODE_UNSPECIFIED])
        return statistics.median(ratios)

    def _stream(self, job: Text, draft: pb.DraftMode.ValueType) -> tuple[list[Any], float]:
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
        options = pb.GenerationOptions(draft=draft, max_new_tokens=self._most_tokens)
        request = pb.GenerateRequest(
            session_id=session.session_id, options=options, close_on_end=True
        )
        began = time.perf_counter()
        parts = list(self._decoder.Generate(request))
        taken = time.perf_counter() - began
        tokens = [token for part in parts for token in part.tokens.tokens]
        return [*tokens, parts[-1].end.total_tokens, parts[-1].end.log_probability], taken
