"""A decoder whose steps wait or fail when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from decoder_service.service import DecoderService
from splitformer.model.cache import DecoderState
from splitformer.v1 import decoder_service_pb2 as dec
from tests.support.rpc import Caller, eventually


class Gate:
    """Stands in front of a decoder; shut, its steps wait.

    Attributes:
        failures: The next so many steps raise instead.
        poison: States that no step survives.
    """

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder
        self._open = threading.Event()
        self._open.set()
        self.failures = 0
        self.poison: list[DecoderState] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def advance(
        self, tokens: Any, states: Sequence[DecoderState], *arguments: Any, **named: Any
    ) -> Any:
        self._open.wait()
        if self.failures:
            self.failures -= 1
            raise RuntimeError("broken on purpose")
        if any(state is poison for state in states for poison in self.poison):
            raise RuntimeError("poisoned on purpose")
        return self._decoder.advance(tokens, states, *arguments, **named)

    def shut(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()


@contextmanager
def gate_of(service: DecoderService) -> Iterator[Gate]:
    """Put a gate in front of a service's decoder for a while."""
    engine = service.engine
    decoder = engine._decoder
    gate = Gate(decoder)
    engine._decoder = gate
    try:
        yield gate
    finally:
        gate.open()
        engine._decoder = decoder


def held_up(caller: Caller, gate: Gate, session: str, **fields: Any) -> Any:
    """Start a generation that does not get on."""
    gate.shut()
    call = caller.start(session, **fields)
    eventually(lambda: caller.session(session).state == dec.SESSION_STATE_RUNNING)
    return call
