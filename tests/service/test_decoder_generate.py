"""Generate and Step: the same tokens as in process, however a stream is cut, resumed or shared."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from splitformer.generation import EndReason, Target
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.conftest import Services
from tests.support.checkpoints import LANGUAGES, MAX_POSITIONS, SENTENCES
from tests.support.reference import Reference
from tests.support.rpc import TEXT, Caller, Generated, Memory, eventually, refused
from tests.support.servers import ServerThread

GREEDY: dict[str, Any] = {}
SAMPLED: dict[str, Any] = {"temperature": 1.0, "top_k": 50, "top_p": 0.95, "seed": 7}
ENDING: dict[str, Any] = {"temperature": 1.0, "seed": 7}
MODES = pytest.mark.parametrize(
    "options", [GREEDY, SAMPLED, ENDING], ids="greedy sampled eos".split()
)
LENGTH, EOS = dec.END_REASON_LENGTH, dec.END_REASON_EOS


@pytest.fixture
def session(caller: Caller) -> Iterator[str]:
    """An open session, German over the usual text."""
    session = caller.open(caller.memory())
    yield session
    caller.close_session(session)


def ids_of(target: Target) -> list[int]:
    return [token.id for token in target.produced]


def assert_same(generated: Generated, target: Target) -> None:
    """Token by token: ids, texts, indices, log-probabilities; and the end."""
    assert generated.ids == ids_of(target)
    assert [token.index for token in generated.tokens] == list(range(len(target.produced)))
    for token, expected in zip(generated.tokens, target.produced, strict=True):
        assert token.text == expected.text
        assert token.log_probability == pytest.approx(expected.log_probability, abs=1e-5)
    assert generated.text == target.text
    assert generated.end.reason == (EOS if target.end else LENGTH)
    if target.end:
        closing = target.end.log_probability
        assert generated.end.log_probability == pytest.approx(closing, abs=1e-5)


@MODES
@pytest.mark.parametrize("language", LANGUAGES)
def test_over_the_wire_is_in_process(
    caller: Caller, reference: Reference, language: str, options: dict[str, Any]
) -> None:
    for text in SENTENCES[:3]:
        session = caller.open(caller.memory(text), language)
        generated = caller.generate(session, close_on_end=True, **options)
        assert_same(generated, reference.target(text, language, **options))


@pytest.mark.parametrize(("precision", "kernels"), [("int8", "auto"), ("fp32", "torch")])
def test_every_arithmetic_over_the_wire_is_itself_in_process(
    services: Services, servers: ServerThread, precision: str, kernels: str
) -> None:
    arithmetic = {"precision": precision, "kernels": kernels}
    encoder = servers.start_encoder(services.model, **arithmetic)
    decoder = servers.start_decoder(services.model, encoder, **arithmetic)
    caller = Caller(encoder, decoder)
    reference = Reference(services.model, precision, kernels)
    for language, options in (("de", GREEDY), ("ja", SAMPLED)):
        session = caller.open(caller.memory(), language)
        generated = caller.generate(session, close_on_end=True, **options)
        assert_same(generated, reference.target(TEXT, language, **options))
    caller.close()


def test_by_steps_is_by_generate(caller: Caller, session: str, reference: Reference) -> None:
    target = reference.target(TEXT, "de", **ENDING)
    assert target.end is not None
    tokens = [caller.step(session, i, **ENDING).token for i in range(len(target.produced))]
    end = caller.step(session, len(tokens), **ENDING).end
    assert_same(Generated(tokens, end), target)
    assert caller.session(session).state == dec.SESSION_STATE_ENDED


def test_the_end_tells_counts_seed_and_timings(caller: Caller, session: str) -> None:
    first = caller.generate(session, max_new_tokens=5, **SAMPLED).end
    assert (first.reason, first.tokens, first.total_tokens, first.steps) == (LENGTH, 5, 5, 5)
    assert first.seed == SAMPLED["seed"]
    timings = first.timings
    assert 0 < timings.first_token_seconds <= timings.total_seconds
    assert timings.queue_seconds >= 0
    assert timings.step_seconds > 0
    second = caller.generate(session, 2, max_new_tokens=1).end
    assert (second.reason, second.tokens, second.total_tokens, second.steps) == (LENGTH, 1, 5, 0)
    assert second.seed == 0


def test_a_seed_is_drawn_and_told_so_that_it_can_be_repeated(caller: Caller) -> None:
    memory = caller.memory()
    first, second, third = (caller.open(memory) for _ in range(3))
    drawn = caller.generate(first, temperature=1.0, close_on_end=True)
    assert drawn.end.seed
    repeated = caller.generate(second, temperature=1.0, seed=drawn.end.seed, close_on_end=True)
    assert repeated.ids == drawn.ids
    other = caller.generate(third, temperature=1.0, close_on_end=True)
    assert other.end.seed != drawn.end.seed


def test_temperature_zero_is_greedy_and_sampling_without_temperature_is_one(
    caller: Caller, reference: Reference
) -> None:
    memory = caller.memory()
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"temperature": 0.0, "top_k": 5}, {}),
        ({"top_k": 5, "seed": 3}, {"temperature": 1.0, "top_k": 5, "seed": 3}),
    ]
    for given, meant in pairs:
        generated = caller.generate(caller.open(memory), close_on_end=True, **given)
        assert generated.ids == ids_of(reference.target(TEXT, "de", **meant))


def test_min_new_tokens_holds_the_end_back(caller: Caller, session: str) -> None:
    generated = caller.generate(session, temperature=1.0, seed=4, min_new_tokens=6)
    assert len(generated.tokens) >= 6


@MODES
def test_resumed_at_every_point_is_uninterrupted(
    caller: Caller, reference: Reference, options: dict[str, Any]
) -> None:
    whole, memory = ids_of(reference.target(TEXT, "de", **options)), caller.memory()
    for split in range(1, len(whole)):
        session = caller.open(memory)
        head = caller.generate(session, max_new_tokens=split, **options)
        tail = caller.generate(session, split if split % 2 else None, **options)
        assert head.ids + tail.ids == whole
        assert [token.index for token in tail.tokens] == list(range(split, len(whole)))
        assert tail.end.total_tokens == len(whole)
        caller.close_session(session)


@MODES
def test_cancelled_then_resumed_is_uninterrupted(
    caller: Caller, services: Services, reference: Reference, options: dict[str, Any]
) -> None:
    whole, memory = reference.target(TEXT, "de", **options), caller.memory()
    for split in (1, 5, 17):
        session = caller.open(memory)
        call = caller.start(session, **options)
        head = [next(call).tokens.tokens[0] for _ in range(split)]
        call.cancel()
        eventually(lambda: services.decoder.service.engine.running == 0)
        assert services.decoder.service.budget.used > 0, "the session stays"
        tail = caller.generate(session, split, **options)
        assert_same(Generated([*head, *tail.tokens], tail.end), whole)
        caller.close_session(session)


def test_an_earlier_start_index_repeats_what_was_produced(caller: Caller, session: str) -> None:
    whole = caller.generate(session, **ENDING)
    again = caller.generate(session, 0, **ENDING)
    assert again.tokens == whole.tokens
    assert (again.end.steps, again.end.reason) == (0, EOS)
    assert again.end.log_probability == whole.end.log_probability
    assert caller.generate(session, 5, **ENDING).tokens == whole.tokens[5:]
    assert caller.generate(session, 5, max_new_tokens=3).tokens == whole.tokens[5:8]
    ended = caller.generate(session, **ENDING)
    assert not ended.tokens
    assert ended.end.reason == EOS


def test_a_step_already_taken_is_answered_from_the_record(
    caller: Caller, session: str, services: Services
) -> None:
    first = [caller.step(session, i).token for i in range(3)]
    steps = services.decoder.metric("splitformer_decoder_steps_total")
    assert [caller.step(session, i).token for i in range(3)] == first
    assert services.decoder.metric("splitformer_decoder_steps_total") == steps
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "STEP_INDEX_AHEAD"):
        caller.step(session, 4)
    assert caller.step(session, 3).token.index == 3


@pytest.mark.parametrize("most", [0, 1, 4, 1000])
def test_messages_hold_as_many_tokens_as_asked_at_most(
    caller: Caller, session: str, reference: Reference, most: int
) -> None:
    for _ in range(2):  # computed, then from the record
        parts = list(caller.start(session, 0, per_message=most))
        sizes = [len(part.tokens.tokens) for part in parts[:-1]]
        assert all(1 <= size <= max(1, most) for size in sizes)
        ids = [token.id for part in parts for token in part.tokens.tokens]
        assert ids == ids_of(reference.target(TEXT, "de"))


def test_a_prefix_is_computed_and_not_counted(caller: Caller, reference: Reference) -> None:
    text = "Open the"
    ids = tuple(reference.checkpoint.tokenizer.encode_target(text))
    as_text = dec.TargetPrefix(text=text)
    as_ids = dec.TargetPrefix(tokens=enc.TokenIds(ids=ids))
    target = reference.target(TEXT, "fr", prefix=ids)
    assert ids_of(target) != ids_of(reference.target(TEXT, "fr"))[: len(target.produced)]
    for prefix in (as_text, as_ids):
        session = caller.open(caller.memory(), "fr", target_prefix=prefix)
        generated = caller.generate(session, close_on_end=True)
        assert_same(generated, target)
        assert generated.end.total_tokens == MAX_POSITIONS - len(ids)


@pytest.mark.parametrize("positions", [1, 5])
def test_max_positions_limit_the_target(
    caller: Caller, reference: Reference, positions: int
) -> None:
    memory = caller.memory()
    small, large = caller.open(memory, max_positions=positions), caller.open(memory)
    assert caller.session(small).size_bytes < caller.session(large).size_bytes
    generated = caller.generate(small)
    assert generated.ids == ids_of(reference.target(TEXT, "de"))[:positions]
    assert generated.end.reason == LENGTH
    again = caller.generate(small)
    assert (again.tokens, again.end.reason) == ([], LENGTH)
    assert caller.step(small, positions).end.reason == LENGTH
    caller.close_session(small)
    caller.close_session(large)


def run_one(caller: Caller, memory: Memory, index: int, results: dict[int, list[int]]) -> None:
    """One of many sessions: greedy or sampled, whole or cancelled half-way and resumed."""
    session = caller.open(memory, LANGUAGES[index % 5])
    options = options_of(index)
    call = caller.start(session, **options)
    if index % 4 == 3:
        head = [next(call).tokens.tokens[0].id for _ in range(index % 7 + 1)]
        call.cancel()
        results[index] = head + caller.generate(session, len(head), **options).ids
        caller.close_session(session)
    else:
        parts = list(call)
        results[index] = [token.id for part in parts for token in part.tokens.tokens]
        caller.close_session(session)


def options_of(index: int) -> dict[str, Any]:
    return {"temperature": 1.0, "top_k": 20, "seed": index} if index % 2 else {}


def test_many_sessions_at_once_give_what_each_gives_alone(
    caller: Caller, reference: Reference
) -> None:
    texts = [SENTENCES[index % len(SENTENCES)] for index in range(32)]
    memories = [caller.memory(text) for text in texts]
    results: dict[int, list[int]] = {}
    threads = [
        threading.Thread(target=run_one, args=(caller, memories[i], i, results)) for i in range(32)
    ]
    for thread in threads:  # they start one after the other while the first are running
        thread.start()
    for thread in threads:
        thread.join()
    for index, text in enumerate(texts):
        alone = reference.target(text, LANGUAGES[index % 5], **options_of(index))
        assert results[index] == ids_of(alone), index


def test_more_sessions_than_fit_into_a_step_take_turns(
    servers: ServerThread, services: Services, reference: Reference
) -> None:
    caller = Caller(services.encoder, servers.start_decoder(services.model, max_batch=2))
    memory, results = caller.memory(), dict[int, list[int]]()
    threads = [
        threading.Thread(target=run_one, args=(caller, memory, i, results)) for i in range(7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(7):
        alone = reference.target(TEXT, LANGUAGES[index % 5], **options_of(index))
        assert results[index] == ids_of(alone), index
    eventually(lambda: caller.footprint()["decoder bytes"] == 0)
    caller.close()


def test_the_reference_ends_as_the_tests_assume(reference: Reference) -> None:
    assert reference.target(TEXT, "de", **ENDING).end is not None
    assert len(reference.target(TEXT, "de", **GREEDY).produced) == MAX_POSITIONS
    assert EndReason.EOS.value == "eos"
