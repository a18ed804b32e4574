"""Any options that can be: the same over the wire as in this process, and alone as in company.

And any that cannot: every field that is wrong is named. What is asked is drawn, from fixed seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
import pytest

from splitformer import statuses
from splitformer.generation import DecodingMode, DraftMode
from splitformer.v1 import decoder_service_pb2 as dec, encoder_service_pb2 as enc
from tests.support.native import needs_native
from tests.support.reference import Reference
from tests.support.rpc import Caller, Generated

TEXTS = ("Open the file.", "Do you want to delete the selected files?", "%s: {path} é 文件 😀")
LANGUAGES = ("ja", "de", "fr", "es", "zh_CN")
STOPS = ("re", "in", "T", "\N{REPLACEMENT CHARACTER}", "'", "择re", "\x1e\x1eT", "file", "7A")
TERMS = (("file", "Datei"), ("selected", "re in"), ("{path}", "{path}"), ("absent", "x"))
IDS = range(3, 370)
BAD: dict[str, tuple[Any, ...]] = {
    "max_new_tokens": (0, -1, -(2**31)),
    "min_new_tokens": (-1,),
    "temperature": (-0.1, float("nan"), float("inf")),
    "top_k": (0, -5),
    "top_p": (0.0, -1.0, 1.001, float("nan")),
    "min_p": (-0.5, 1.5, float("nan")),
    "repetition_penalty": (0.0, -2.0, float("inf"), float("nan")),
    "no_repeat_ngram_size": (-1,),
    "num_beams": (0, 257, -1),
    "num_return_sequences": (0, 500),
    "length_penalty": (11.0, -10.5, float("nan")),
    "stop": ([""], ["a", ""], ["a"] * 257),
    "alternatives": (-1, 101),
    "max_passes": (0, -3),
    "logit_bias": ({5: float("nan")}, {5: float("inf"), 6: 1.0}, dict.fromkeys(range(1001), 1.0)),
    "bad_words": ([dec.BadWord(text=" ")], [dec.BadWord()]),
    "glossary": ([dec.GlossaryEntry(source="", target="a")],),
}


class Wish(NamedTuple):
    """What is asked for."""

    text: str
    language: str
    prefix: tuple[int, ...]
    options: dict[str, Any]


def wishes(seed: int, number: int) -> list[Wish]:
    rng = random.Random(seed)
    return [
        Wish(
            rng.choice(TEXTS),
            rng.choice(LANGUAGES),
            tuple(rng.sample(IDS, rng.choice((0, 0, 1, 4)))),
            possible(rng),
        )
        for _ in range(number)
    ]


def possible(rng: random.Random) -> dict[str, Any]:
    """Draw options that go together."""
    way = rng.choice((draws, draws, searches, searches, guesses, passes, greedy))
    most = rng.choice((1, 2, 5, 12, 30))
    found = {"max_new_tokens": most, "min_new_tokens": rng.choice((0, 0, most // 2, most))}
    return found | way(rng)


def some(rng: random.Random, **choices: tuple[Any, ...]) -> dict[str, Any]:
    """Draw values of some of the options."""
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.4}


def filters(rng: random.Random) -> dict[str, Any]:
    return some(
        rng,
        repetition_penalty=(0.7, 1.0, 1.3, 20.0),
        no_repeat_ngram_size=(0, 1, 2, 3),
        suppressed_tokens=((319,), (1,), tuple(IDS[::2]), tuple(IDS[:-1])),
        bad_words=(("re",), ((319, 283), (92,)), ("in", "file", (38, 38, 38))),
    )


def stops(rng: random.Random) -> dict[str, Any]:
    return some(rng, stop=tuple(tuple(rng.sample(STOPS, n)) for n in (1, 3)))


def told(rng: random.Random) -> dict[str, Any]:
    return some(rng, alternatives=(1, 40), attention=(True,), alignments=(True,))


def greedy(rng: random.Random) -> dict[str, Any]:
    return filters(rng) | stops(rng) | told(rng)


def draws(rng: random.Random) -> dict[str, Any]:
    how = some(
        rng,
        temperature=(0.3, 1.0, 2.5),
        top_k=(1, 5, 70, 9999),
        top_p=(0.05, 0.9, 1.0),
        min_p=(0.0, 0.05, 1.0),
    )
    how |= some(rng, logit_bias=(((319, 2.0), (283, -50.0)), ((5, 9.0),)))
    return greedy(rng) | how | {"seed": rng.choice((0, 5, 2**64 - 1))}


def searches(rng: random.Random) -> dict[str, Any]:
    beams = rng.choice((2, 3, 5))
    how = some(rng, length_penalty=(-1.0, 0.0, 2.0), early_stopping=(True, False))
    found = filters(rng) | how | {"num_beams": beams, "num_return_sequences": beams - 1}
    if rng.random() < 0.4:
        terms = tuple(rng.sample(TERMS, 2))
        return found | {"glossary": terms, "max_new_tokens": 30, "suppressed_tokens": ()}
    return found | stops(rng)


def guesses(rng: random.Random) -> dict[str, Any]:
    return greedy(rng) | {"draft": rng.choice(("copy", "jacobi"))}


def passes(rng: random.Random) -> dict[str, Any]:
    return {"mode": "parallel"} | stops(rng) | told(rng) | some(rng, max_passes=(1, 3))


def ours(options: dict[str, Any]) -> dict[str, Any]:
    """Options as this process has them."""
    found = dict(options)
    if "draft" in found:
        found["draft"] = DraftMode(found["draft"])
    if "mode" in found:
        found["mode"] = DecodingMode(found["mode"])
    return found


def theirs(options: dict[str, Any]) -> dict[str, Any]:
    """Options as the protocol has them."""
    found = dict(options)
    if "draft" in found:
        found["draft"] = dec.DraftMode.Value(f"DRAFT_MODE_{found['draft'].upper()}")
    if "mode" in found:
        found["mode"] = dec.DECODING_MODE_PARALLEL
    words = found.get("bad_words", ())
    found["bad_words"] = [
        dec.BadWord(text=w) if isinstance(w, str) else dec.BadWord(tokens=enc.TokenIds(ids=w))
        for w in words
    ]
    found["logit_bias"] = dict(found.get("logit_bias", ()))
    terms = found.get("glossary", ())
    found["glossary"] = [dec.GlossaryEntry(source=s, target=t) for s, t in terms]
    return found


def generated(caller: Caller, wish: Wish) -> Generated:
    prefix = dec.TargetPrefix(tokens=enc.TokenIds(ids=wish.prefix))
    memory = caller.memory(wish.text)
    session = caller.open(memory, wish.language, target_prefix=prefix)
    per_message = len(wish.text) % 3 * 20
    try:
        return caller.generate(session, per_message=per_message, **theirs(wish.options))
    finally:
        caller.close_session(session)


def outcome(caller: Caller, wish: Wish) -> tuple[Any, ...]:
    """All that is told, or what is refused: terms that do not fit, say."""
    try:
        found = generated(caller, wish)
    except grpc.RpcError as error:
        return (str(error),)
    end = found.end
    closing = (end.reason, end.text, end.log_probability, end.total_tokens, end.seed)
    parts = [*found.tokens, *found.hypotheses]
    return (*closing, *(part.SerializeToString(deterministic=True) for part in parts))


@needs_native
@pytest.mark.parametrize("seed", range(3))
def test_over_the_wire_as_in_process(caller: Caller, reference: Reference, seed: int) -> None:
    for wish in wishes(seed, 15):
        if wish.options.get("stop") or "max_passes" in wish.options:
            continue  # the text of the target goes on, and a block's length is the service's
        found = generated(caller, wish)
        target = reference.target(wish.text, wish.language, wish.prefix, **ours(wish.options))
        whole = [(token.id, token.text, token.log_probability) for token in target.produced]
        assert [(t.id, t.text, t.log_probability) for t in found.tokens] == whole, wish
        assert (found.end.reason == dec.END_REASON_EOS) == (target.end is not None), wish


@needs_native
@pytest.mark.parametrize("seed", range(10, 13))
def test_in_company_as_alone(caller: Caller, seed: int) -> None:
    asked = wishes(seed, 24)
    alone = [outcome(caller, wish) for wish in asked]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda wish: outcome(caller, wish), asked))
    for wish, one, other in zip(asked, alone, together, strict=True):
        assert one == other, wish
    assert sum(len(one) > 6 for one in alone) > len(asked) // 2


def broken(rng: random.Random) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Give options of which one to three are impossible, and which those are."""
    while True:
        options = theirs(possible(rng))
        fields = rng.sample(sorted(BAD), rng.randint(1, 3))
        yield options | {name: rng.choice(BAD[name]) for name in fields}, set(fields)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_impossible_is_named(caller: Caller, seed: int) -> None:
    session = caller.open(caller.memory())
    for _, (options, fields) in zip(range(40), broken(random.Random(seed)), strict=False):
        with pytest.raises(grpc.RpcError) as caught:
            caller.generate(session, **options)
        error: Any = caught.value
        trailers = {item.key: item.value for item in error.trailing_metadata()}
        code = error.code().value[0]
        refusal = statuses.error_of(code, error.details(), trailers[statuses.DETAILS_KEY])
        assert (error.code(), refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_OPTION")
        named = {v.field.removeprefix("options.").partition("[")[0] for v in refusal.violations}
        assert fields <= named, options
        for violation in refusal.violations:
            assert ", got " in violation.description
            assert violation.field in refusal.message
    assert caller.session(session).tokens == 0
    caller.close_session(session)
