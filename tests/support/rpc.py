"""Raw calls over real sockets, what they must be refused with, and what they must leave behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import ANY

import grpc
import pytest

from decoder_service.service import DecoderService
from encoder_service.service import EncoderService
from splitformer import statuses, wire
from splitformer.errors import SplitformerError
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc, tensor_pb2
from splitformer.v1.decoder_service_pb2_grpc import DecoderServiceStub
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from tests.support.servers import Running

Memory = tuple[tensor_pb2.MemoryHeader, bytes]
TEXT = "Open the file."
_PATIENCE_SECONDS = 60.0
_CALL_SECONDS = 30.0


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds, however slow the machine; fail if it never does."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


class Refusal:
    """What a call was refused with, once it was."""

    error: SplitformerError
    trailers: dict[str, str | bytes]


@contextmanager
def refused(
    code: grpc.StatusCode, reason: str, field: str | None = None, value: object = None
) -> Iterator[Refusal]:
    """Expect a status, its reason and, if `field` is given, the one violation that names it."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as caught:
        yield refusal
    call: Any = caught.value
    assert call.code() is code, (call.code(), call.details())
    refusal.trailers = {item.key: item.value for item in call.trailing_metadata()}
    details = refusal.trailers.get(statuses.DETAILS_KEY)
    assert isinstance(details, bytes)
    error = refusal.error = statuses.error_of(code.value[0], call.details(), details)
    assert error.reason == reason, (error.reason, error.message)
    violations = [violation.field for violation in error.violations]
    assert violations == ([] if field is None else [field])
    if field is not None:
        rule, got, seen = error.violations[0].description.rpartition(", got ")
        assert rule
        assert got
        assert value is ANY or seen == repr(value)
        assert field in error.message


@dataclass(frozen=True)
class Generated:
    """A finished generation."""

    tokens: list[dec.Token]
    end: dec.End
    hypotheses: list[dec.Hypothesis] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens) + self.end.text


def collected(responses: Iterable[dec.GenerateResponse]) -> Generated:
    """Read a generation to its end."""
    parts = list(responses)
    kinds = [part.WhichOneof("part") for part in parts]
    assert kinds[-1] == "end"
    hypotheses = parts[-2].hypotheses.hypotheses if "hypotheses" in kinds[-2:] else []
    assert set(kinds[: -2 if hypotheses else -1]) <= {"tokens"}
    tokens = [token for part in parts for token in part.tokens.tokens]
    return Generated(tokens, parts[-1].end, list(hypotheses))


class Caller:
    """The generated stubs of both services, and a few calls that most tests make."""

    def __init__(
        self,
        encoder: Running[EncoderService] | None,
        decoder: Running[DecoderService] | None,
        *options: tuple[str, Any],
    ) -> None:
        self._running = (encoder, decoder)
        self._channels: list[grpc.Channel] = []
        self._options = options
        if encoder is not None:
            self.encoder = EncoderServiceStub(self._channel(encoder.address))
        if decoder is not None:
            self.decoder = DecoderServiceStub(self._channel(decoder.address))

    def _channel(self, address: str) -> grpc.Channel:
        options = [("grpc.use_local_subchannel_pool", 1), *self._options]
        self._channels.append(grpc.insecure_channel(address, options))
        return self._channels[-1]

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def footprint(self) -> dict[str, int]:
        """Everything that a call may leave behind."""
        encoder, decoder = self._running
        found: dict[str, int] = {}
        if encoder is not None:
            store = encoder.service.store
            found["encoder bytes"] = store.used_bytes
            found["memories"], found["leases"] = len(store), store.leases
            found["sources"] = encoder.service._engine.open
            found["encoder calls"] = encoder.server._interceptor.in_flight
        if decoder is not None:
            found["decoder bytes"] = decoder.service.budget.used
            found["sessions"] = len(decoder.service.sessions)
            found["running"] = decoder.service.engine.running
            found["decoder calls"] = decoder.server._interceptor.in_flight
        return found

    @contextmanager
    def nothing_left_behind(self) -> Iterator[None]:
        """Check that afterwards all is as it was, and that both services still work."""
        before = self.footprint()
        yield
        eventually(lambda: self.footprint() == before)
        self.check_works()
        eventually(lambda: self.footprint() == before)

    def check_works(self) -> None:
        """Translate a sentence by upload and see that something comes out."""
        session = self.open(self.memory())
        assert len(self.generate(session, max_new_tokens=2).tokens) == 2
        self.close_session(session)

    def memory(self, text: str = TEXT) -> Memory:
        """Encode inline."""
        request = enc.EncodeRequest(
            source=enc.Source(text=text), delivery=enc.MEMORY_DELIVERY_INLINE
        )
        inline = self.encoder.Encode(request, timeout=_CALL_SECONDS).inline
        return inline.header, wire.tensor_bytes(inline.tensor)

    def reference(self, text: str = TEXT, lease_ms: int = 0) -> tensor_pb2.MemoryReference:
        """Encode by reference."""
        request = enc.EncodeRequest(
            source=enc.Source(text=text),
            delivery=enc.MEMORY_DELIVERY_REFERENCE,
            lease_ms=lease_ms,
        )
        return self.encoder.Encode(request, timeout=_CALL_SECONDS).reference

    def release(self, reference: tensor_pb2.MemoryReference) -> enc.ReleaseMemoryResponse:
        request = enc.ReleaseMemoryRequest(
            memory_id=reference.memory_id, lease_id=reference.lease.lease_id
        )
        return self.encoder.ReleaseMemory(request, timeout=_CALL_SECONDS)

    def open(self, memory: Memory, language: str = "de", **fields: Any) -> str:
        """Open a session by upload; return its id."""
        return self.open_stream(upload(memory, language, **fields)).session_id

    def open_reference(
        self, reference: tensor_pb2.MemoryReference, language: str = "de", **fields: Any
    ) -> str:
        """Open a session by reference; return its id."""
        header = dec.SessionHeader(reference=reference, target_language=language, **fields)
        return self.open_stream([dec.OpenSessionRequest(header=header)]).session_id

    def open_stream(self, requests: Iterable[dec.OpenSessionRequest]) -> dec.OpenSessionResponse:
        return self.decoder.OpenSession(iter(requests), timeout=_CALL_SECONDS)

    def start(
        self,
        session: str,
        start_index: int | None = None,
        *,
        per_message: int = 0,
        close_on_end: bool = False,
        timeout: float = _CALL_SECONDS,
        **options: Any,
    ) -> Any:
        """Begin a generation and return the call."""
        request = dec.GenerateRequest(
            session_id=session,
            options=dec.GenerationOptions(**options),
            start_index=start_index,
            max_tokens_per_message=per_message,
            close_on_end=close_on_end,
        )
        return self.decoder.Generate(request, timeout=timeout)

    def generate(self, session: str, start_index: int | None = None, **fields: Any) -> Generated:
        """Run a generation to its end."""
        return collected(self.start(session, start_index, **fields))

    def step(
        self, session: str, index: int | None, forced_token: int | None = None, **options: Any
    ) -> dec.StepResponse:
        request = dec.StepRequest(
            session_id=session,
            index=index,
            options=dec.GenerationOptions(**options),
            forced_token=forced_token,
        )
        return self.decoder.Step(request, timeout=_CALL_SECONDS)

    def session(self, session: str) -> dec.GetSessionResponse:
        return self.decoder.GetSession(
            dec.GetSessionRequest(session_id=session), timeout=_CALL_SECONDS
        )

    def close_session(self, session: str) -> dec.CloseSessionResponse:
        request = dec.CloseSessionRequest(session_id=session)
        return self.decoder.CloseSession(request, timeout=_CALL_SECONDS)


def upload(
    memory: Memory, language: str = "de", chunk_bytes: int = 256, **fields: Any
) -> list[dec.OpenSessionRequest]:
    """The messages of an upload: header, then chunks."""
    header, data = memory
    session = dec.SessionHeader(upload=header, target_language=language, **fields)
    chunks = wire.chunks_of(data, chunk_bytes)
    return [
        dec.OpenSessionRequest(header=session),
        *(dec.OpenSessionRequest(chunk=chunk) for chunk in chunks),
    ]
