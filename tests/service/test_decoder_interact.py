"""Interact: a loop that is steered gives what a generation over the same target gives."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from splitformer.v1 import decoder_service_pb2 as dec
from tests.conftest import Services
from tests.support.gate import gate_of
from tests.support.rpc import Caller, eventually, refused
from tests.support.servers import ServerThread

INVALID, PRECONDITION = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "seed": 7}
ENDING: dict[str, Any] = {"temperature": 1.0, "seed": 7}
EOS = 1


class Steered:
    """A call under way.

    Attributes:
        ids: Tokens that count, in order.
        end: The last end that came.
        rewound: Indices that were gone back to.
    """

    def __init__(self, caller: Caller) -> None:
        self._requests: queue.SimpleQueue[dec.InteractRequest | None] = queue.SimpleQueue()
        self.call: Any = caller.decoder.Interact(iter(self._requests.get, None), timeout=30)
        self.tokens: list[dec.Token] = []
        self.rewound: list[int] = []
        self.end: dec.End | None = None

    @property
    def ids(self) -> list[int]:
        return [token.id for token in self.tokens]

    def start(self, session: str, hold: bool = False, **fields: Any) -> Steered:
        names = ("start_index", "max_tokens_per_message", "close_on_end")
        own = {name: fields.pop(name) for name in names if name in fields}
        options = dec.GenerationOptions(**fields)
        return self.send(
            hold, start=dec.GenerateRequest(session_id=session, options=options, **own)
        )

    def force(self, token: int, index: int | None = None, hold: bool = False) -> Steered:
        return self.send(hold, force=dec.Force(token=token, index=index))

    def rewind(self, index: int, hold: bool = False) -> Steered:
        return self.send(hold, rewind=dec.Rewind(index=index))

    def redirect(self, hold: bool = False, **options: Any) -> Steered:
        return self.send(hold, redirect=dec.GenerationOptions(**options))

    def finish(self) -> Steered:
        return self.send(finish=dec.Finish())

    def send(self, hold: bool = False, **action: Any) -> Steered:
        self._requests.put(dec.InteractRequest(hold=hold, **action))
        return self

    def close(self) -> Steered:
        """Close the caller's side."""
        self._requests.put(None)
        return self

    def read(self) -> str:
        """Take one message in; return what it was."""
        message = next(self.call)
        kind = str(message.WhichOneof("part"))
        if kind == "tokens":
            for token in message.tokens.tokens:
                assert token.index == len(self.tokens), "in order, without gaps"
                self.tokens.append(token)
        elif kind == "rewound":
            self.rewound.append(message.rewound.index)
            assert message.rewound.index <= len(self.tokens)
            del self.tokens[message.rewound.index :]
        else:
            self.end = message.end
        return kind

    def until(self, kind: str) -> Steered:
        while self.read() != kind:
            pass
        return self

    def to_the_end(self) -> Steered:
        """Read until the server closes the stream."""
        try:
            while True:
                self.read()
        except StopIteration:
            return self


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


@pytest.fixture
def steered(caller: Caller) -> Iterator[Steered]:
    steered = Steered(caller)
    yield steered
    steered.close()
    steered.call.cancel()


def continued(caller: Caller, ids: list[int], **options: Any) -> list[int]:
    """What a generation says whose first tokens are these."""
    session = caller.open(caller.memory())
    for index, token in enumerate(ids):
        caller.step(session, index, forced_token=token)
    rest = caller.generate(session, **options).ids
    caller.close_session(session)
    return [*ids, *rest]


@pytest.mark.parametrize("options", [{}, SAMPLED, ENDING], ids="greedy sampled eos".split())
@pytest.mark.parametrize("most", [0, 7])
def test_left_alone_it_is_a_generation(
    caller: Caller, session: str, steered: Steered, options: dict[str, Any], most: int
) -> None:
    twin = caller.open(caller.memory())
    expected = caller.generate(twin, **options)
    steered.start(session, max_tokens_per_message=most, **options).close().to_the_end()
    assert steered.tokens == expected.tokens
    assert steered.end is not None
    assert (steered.end.reason, steered.end.seed) == (expected.end.reason, expected.end.seed)
    assert (steered.end.tokens, steered.end.steps) == (expected.end.tokens, expected.end.steps)
    assert steered.end.log_probability == expected.end.log_probability
    again = Steered(caller).start(session, start_index=2, **options).close()
    again.tokens = list(expected.tokens[:2])
    assert again.to_the_end().tokens == expected.tokens
    caller.close_session(twin)


def test_force_rewind_and_redirect_at_once(caller: Caller, session: str, steered: Steered) -> None:
    whole = continued(caller, [])
    steered.start(session).until("end")
    assert steered.ids == whole
    steered.rewind(3, hold=True).force(300, hold=True).force(301).until("rewound").until("end")
    assert steered.ids == continued(caller, [*whole[:3], 300, 301])
    steered.force(302, 2).until("rewound").until("end")
    assert steered.ids == continued(caller, [*whole[:2], 302])
    steered.rewind(5, hold=True).redirect(**SAMPLED).until("rewound").until("end")
    head = continued(caller, [*whole[:2], 302])[:5]
    assert steered.ids == continued(caller, head, **SAMPLED)
    steered.rewind(0, hold=True).redirect().until("rewound").until("end")
    assert steered.ids == whole
    steered.finish().to_the_end()
    assert steered.rewound == [3, 2, 5, 0]
    assert caller.session(session).tokens == len(whole)


def test_steering_while_the_loop_runs(caller: Caller, session: str, steered: Steered) -> None:
    whole = continued(caller, [])
    steered.start(session)
    for _ in range(4):
        steered.read()
    steered.force(300, 4).until("rewound").close().to_the_end()
    assert steered.ids == continued(caller, [*whole[:4], 300])
    assert steered.rewound == [4]


def test_forcing_without_an_index_takes_the_next_place(
    caller: Caller, session: str, steered: Steered
) -> None:
    steered.start(session, hold=True).force(300, hold=True).force(301, hold=True)
    steered.force(302).close().to_the_end()
    assert steered.ids == continued(caller, [300, 301, 302])
    assert not steered.rewound


def test_what_is_unsent_comes_before_the_answer(
    caller: Caller, session: str, steered: Steered
) -> None:
    first = caller.generate(session, max_new_tokens=6)
    steered.start(session, hold=True, start_index=1).rewind(4, hold=True)
    steered.tokens.append(first.tokens[0])
    assert steered.until("rewound").ids == first.ids[:4]
    steered.close().to_the_end()
    assert steered.ids == continued(caller, [])


def test_a_forced_end_and_back(caller: Caller, session: str, steered: Steered) -> None:
    whole = continued(caller, [])
    steered.start(session, hold=True).force(EOS).until("end")
    assert steered.end is not None
    assert (steered.end.reason, steered.ids) == (dec.END_REASON_EOS, [])
    steered.rewind(0).until("end").finish().to_the_end()
    assert steered.ids == whole


def test_max_new_tokens_counts_from_the_start_or_the_redirect(
    caller: Caller, session: str, steered: Steered
) -> None:
    whole = continued(caller, [])
    steered.start(session, max_new_tokens=5).until("end")
    steered.rewind(2).until("end")
    assert steered.ids == whole[:5], "the limit stays where it was"
    steered.redirect(max_new_tokens=4).until("end")
    assert steered.ids == whole[:9]
    steered.finish().to_the_end()


def test_finish_stops_a_running_loop(caller: Caller, services: Services) -> None:
    session = caller.open(caller.memory())
    with gate_of(services.decoder.service) as gate:
        steered = Steered(caller).start(session)
        steered.read()
        gate.shut()
        steered.finish()
        gate.open()
        steered.to_the_end()
    assert steered.end is not None
    assert steered.end.reason == dec.END_REASON_CANCELLED
    steered.close()
    rest = caller.generate(session, len(steered.ids), close_on_end=True)
    assert steered.ids + rest.ids == continued(caller, [])


def test_close_on_end_closes(caller: Caller) -> None:
    session = caller.open(caller.memory())
    steered = Steered(caller).start(session, close_on_end=True, max_new_tokens=3)
    steered.until("end")
    assert caller.session(session).state == dec.SESSION_STATE_RUNNING
    steered.close().to_the_end()
    assert caller.session(session).state == dec.SESSION_STATE_CLOSED


def test_the_session_is_busy_until_the_call_ends(
    caller: Caller, session: str, steered: Steered
) -> None:
    steered.start(session, max_new_tokens=2).until("end")
    with refused(grpc.StatusCode.ABORTED, "SESSION_BUSY"):
        caller.step(session, 2)
    steered.rewind(1, hold=True).until("rewound")
    with refused(grpc.StatusCode.ABORTED, "SESSION_BUSY"):
        caller.generate(session)
    steered.finish().to_the_end()
    assert caller.step(session, 1).token.index == 1


@pytest.mark.parametrize("when", ["running", "held", "ended"])
def test_a_caller_who_vanishes_leaves_nothing(caller: Caller, when: str) -> None:
    session = caller.open(caller.memory())
    steered = Steered(caller).start(session, hold=when == "held")
    if when == "running":
        steered.read()
    elif when == "ended":
        steered.until("end")
    else:
        eventually(lambda: caller.session(session).state == dec.SESSION_STATE_RUNNING)
    steered.call.cancel()
    steered.close()
    eventually(lambda: caller.session(session).state != dec.SESSION_STATE_RUNNING)
    assert caller.generate(session, 0, close_on_end=True).ids == continued(caller, [])


@pytest.mark.parametrize("held", [True, False])
def test_closing_the_session_ends_the_call(caller: Caller, held: bool) -> None:
    session = caller.open(caller.memory())
    steered = Steered(caller).start(session, hold=held)
    if held:
        eventually(lambda: caller.session(session).state == dec.SESSION_STATE_RUNNING)
    else:
        steered.until("end")
    caller.close_session(session)
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        steered.to_the_end()
    steered.close()


def test_idle_callers_are_let_go(services: Services, servers: ServerThread) -> None:
    decoder = servers.start_decoder(services.model, idle_seconds=0.3)
    caller = Caller(services.encoder, decoder)
    memory = caller.memory()
    held = Steered(caller).start(caller.open(memory), hold=True)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "INTERACTION_IDLE"):
        held.to_the_end()
    ended = Steered(caller).start(caller.open(memory), close_on_end=True).to_the_end()
    assert ended.end is not None
    silent = Steered(caller)
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED, "INTERACTION_IDLE"):
        silent.to_the_end()
    for each in (held, ended, silent):
        each.close()
    eventually(lambda: decoder.service.budget.used == 0)
    caller.close()


@pytest.mark.parametrize(
    ("action", "code", "reason"),
    [
        ({"rewind": dec.Rewind(index=-1)}, PRECONDITION, "REWIND_BEFORE_PREFIX"),
        ({"rewind": dec.Rewind(index=4)}, PRECONDITION, "REWIND_AHEAD"),
        ({"force": dec.Force(token=5, index=-1)}, PRECONDITION, "REWIND_BEFORE_PREFIX"),
        ({"force": dec.Force(token=5, index=9)}, PRECONDITION, "REWIND_AHEAD"),
        ({"force": dec.Force(token=5)}, PRECONDITION, "NOTHING_TO_FORCE"),
        ({"force": dec.Force(token=100_000)}, INVALID, "BAD_OPTION"),
        ({"redirect": dec.GenerationOptions(top_p=0)}, INVALID, "BAD_OPTION"),
        ({"redirect": dec.GenerationOptions(num_beams=3)}, INVALID, "BAD_OPTION"),
        (
            {
                "redirect": dec.GenerationOptions(
                    glossary=[dec.GlossaryEntry(source="a", target="b")]
                )
            },
            INVALID,
            "BAD_OPTION",
        ),
        ({"redirect": dec.GenerationOptions(suppressed_tokens=[-1])}, INVALID, "BAD_OPTION"),
        ({"start": dec.GenerateRequest()}, INVALID, "BAD_ACTION"),
        ({}, INVALID, "BAD_ACTION"),
    ],
    ids=str,
)
def test_what_cannot_be_done_ends_the_call_and_keeps_the_session(
    caller: Caller, session: str, steered: Steered, action: Any, code: Any, reason: str
) -> None:
    steered.start(session, max_new_tokens=3).until("end").send(**action)
    with pytest.raises(grpc.RpcError) as caught:
        steered.to_the_end()
    error: Any = caught.value
    assert error.code() is code, error.details()
    assert reason.encode() in dict(error.trailing_metadata())["grpc-status-details-bin"]
    eventually(lambda: caller.session(session).state == dec.SESSION_STATE_IDLE)
    assert caller.generate(session, 0).ids == continued(caller, [])


def test_a_call_begins_with_a_start(caller: Caller, session: str) -> None:
    for steered in (Steered(caller).rewind(0), Steered(caller)):
        steered.close()
        with refused(INVALID, "BAD_ACTION", "start", None):
            steered.to_the_end()
    steered = Steered(caller).start("nobody").close()
    with refused(grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND"):
        steered.to_the_end()
    steered = Steered(caller).start(session, start_index=3).close()
    with refused(PRECONDITION, "START_INDEX_AHEAD"):
        steered.to_the_end()


def test_a_slow_reader_pauses_only_itself(caller: Caller, services: Services) -> None:
    session, other = caller.open(caller.memory()), caller.open(caller.memory(), "fr")
    steered = Steered(caller).start(session)
    assert caller.generate(other, close_on_end=True).tokens
    steered.rewind(2).close()
    steered.to_the_end()
    assert steered.ids == continued(caller, [])
    caller.close_session(session)


def test_a_broken_step_ends_call_and_session(caller: Caller, services: Services) -> None:
    session = caller.open(caller.memory())
    with gate_of(services.decoder.service) as gate:
        gate.shut()
        steered = Steered(caller).start(session)
        eventually(lambda: caller.session(session).state == dec.SESSION_STATE_RUNNING)
        gate.failures = 1
        gate.open()
        with refused(grpc.StatusCode.INTERNAL, "INTERNAL"):
            steered.to_the_end()
    steered.close()
    assert caller.session(session).state == dec.SESSION_STATE_CLOSED
