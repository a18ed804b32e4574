"""What a session gets over the wire does not depend on its company, nor on what it goes through.

Random mixes of calls run at once against both services: by upload and by reference, greedy and
drawn, in one stream or in several that are cancelled and gone on with, by Step, in a fork. Each
must give, bit for bit, what the same wish gives alone. And sessions that nobody uses take no part
in the steps of the others.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from splitformer.v1 import decoder_service_pb2 as dec
from tests.support.native import needs_native
from tests.support.rpc import Caller, eventually
from tests.support.servers import ServerThread

SOURCES = (
    "The file could not be opened.",
    "Save",
    "Do you want to replace the file?",
    "%s items were moved to {folder}.",
)
LANGUAGES = ("de", "fr")
TOKENS = 24
Told = list[tuple[int, int, str, float]]


@dataclass(frozen=True)
class Wish:
    """What is asked for; equal wishes must get equal answers."""

    source: str
    language: str
    options: tuple[tuple[str, Any], ...]


def told(tokens: Iterator[dec.Token] | list[dec.Token]) -> Told:
    return [(t.index, t.id, t.text, t.log_probability) for t in tokens]


def at_once(caller: Caller, wish: Wish, session: str) -> Told:
    return told(caller.generate(session, **dict(wish.options)).tokens)


def cancelled_and_resumed(caller: Caller, wish: Wish, session: str) -> Told:
    """Leave after a few tokens, again and again, and go on behind the last one read."""
    got: Told = []
    while len(got) < TOKENS:
        left = TOKENS - len(got)
        call = caller.start(session, len(got), **{**dict(wish.options), "max_new_tokens": left})
        parts = list(islice(call, 5))
        call.cancel()
        got += told([token for part in parts for token in part.tokens.tokens])
        if parts[-1].WhichOneof("part") == "end":
            break
    return got


def step_by_step(caller: Caller, wish: Wish, session: str) -> Told:
    steps = []
    options = {name: value for name, value in wish.options if name != "max_new_tokens"}
    for index in range(TOKENS):
        step = caller.step(session, index, **options)
        if step.WhichOneof("part") == "end":
            break
        steps.append(step.token)
    return told(steps)


def in_a_fork(caller: Caller, wish: Wish, session: str) -> Told:
    """Produce some, fork before the last of them, and go on there."""
    options = dict(wish.options)
    first = told(caller.generate(session, **{**options, "max_new_tokens": 6}).tokens)
    kept = max(0, len(first) - 2)
    request = dec.ForkSessionRequest(session_id=session, keep_tokens=kept)
    fork = caller.decoder.ForkSession(request).session.session_id
    rest = {**options, "max_new_tokens": TOKENS - kept}
    got = first[:kept] + told(caller.generate(fork, kept, **rest).tokens)
    caller.close_session(fork)
    return got


WAYS = (at_once, cancelled_and_resumed, step_by_step, in_a_fork)


def opened(caller: Caller, wish: Wish, by_reference: bool) -> str:
    if not by_reference:
        return caller.open(caller.memory(wish.source), wish.language)
    reference = caller.reference(wish.source)
    session = caller.open_reference(reference, wish.language)
    caller.release(reference)
    return session


def wishes(chance: random.Random, count: int) -> list[Wish]:
    drawn: list[dict[str, Any]] = [
        {},
        {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
        *({"seed": seed, "temperature": 0.9, "top_k": 30} for seed in range(3)),
        {"seed": 7, "temperature": 1.2, "top_p": 0.9, "min_p": 0.01},
    ]
    return [
        Wish(
            chance.choice(SOURCES),
            chance.choice(LANGUAGES),
            tuple({**chance.choice(drawn), "max_new_tokens": TOKENS}.items()),
        )
        for _ in range(count)
    ]


@needs_native
@pytest.mark.parametrize("seed", range(3))
def test_answers_are_the_same_bits_in_any_company(
    servers: ServerThread, tiny_model: Path, seed: int
) -> None:
    encoder = servers.start_encoder(tiny_model)
    decoder = servers.start_decoder(tiny_model, encoder, max_batch=5, window_tokens=3)
    caller, chance = Caller(encoder, decoder), random.Random(seed)
    many = wishes(chance, 20)
    jobs = [(wish, chance.choice(WAYS), chance.random() < 0.5) for wish in many]

    def run(job: tuple[Wish, Any, bool]) -> Told:
        wish, way, by_reference = job
        session = opened(caller, wish, by_reference)
        got: Told = way(caller, wish, session)
        caller.close_session(session)
        return got

    alone = {wish: run((wish, at_once, False)) for wish in set(many)}
    with ThreadPoolExecutor(len(jobs)) as pool:
        together = list(pool.map(run, jobs))
    for (wish, way, _), got in zip(jobs, together, strict=True):
        assert got == alone[wish], way.__name__
    assert len(set(map(str, alone.values()))) > 1, "different wishes get different answers"
    eventually(lambda: decoder.service.budget.used == 0)
    caller.close()


def test_idle_sessions_take_no_part(servers: ServerThread, tiny_model: Path) -> None:
    encoder = servers.start_encoder(tiny_model)
    decoder = servers.start_decoder(tiny_model, encoder)
    caller = Caller(encoder, decoder)
    memory = caller.memory()
    idle = [caller.open(memory) for _ in range(200)]
    for session in idle[:3]:
        caller.generate(session, max_new_tokens=2)
    each = {caller.session(session).size_bytes for session in idle}
    held = decoder.service.budget.used
    assert held == 200 * max(each), "sessions count their bytes, and nothing else"
    active = caller.open(memory)
    caller.generate(active, max_new_tokens=8)
    assert decoder.service.engine.running == 0
    steps = decoder.metric("splitformer_decoder_steps_total")
    rows = decoder.metric("splitformer_decoder_batch_size_sum")
    assert rows == steps, "every step was that of a single session"
    for session in (*idle, active):
        caller.close_session(session)
    assert decoder.service.budget.used == 0
    caller.close()
