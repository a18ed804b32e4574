"""Guessing changes no bit of ids, texts, log-probabilities, what is told, keys and values.

Guesses here are the truth with errors, so that some are kept and some are not; sessions that guess
and sessions that do not share their steps, join late, and have limits, stop strings and filters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from splitformer.generation import (
    Decoding,
    DecodingMode,
    Drafting,
    DraftMode,
    GenerationOptions,
    News,
    Produced,
    RowCosts,
    Sequential,
    Target,
    Vocabulary,
    decoding_for,
    drafts_of,
    step,
)
from splitformer.generation.drafting import NOWHERE, Look
from splitformer.generation.speculative import Speculative
from splitformer.model import Transformer
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.tokenizer import SourcePiece
from splitformer.native import InstructionSet, Precision
from tests.parity.test_native import VOCABULARY as SIZE
from tests.parity.test_native_invariance import own_of, same
from tests.support.checkpoints import random_model
from tests.support.native import needs_native

pytestmark = needs_native
WIDTH, POSITIONS = 32, 48
VOCABULARY = Vocabulary(eos_id=1, never=(0, 2), size=SIZE)
EAGER = Drafting(
    RowCosts((1.0, 1.0)), lossless=True, token_kinds=bytes(SIZE), unusable=frozenset((0, 1, 2))
)
"""Every guess is worth a row."""


@dataclass
class Noisy:
    """Guesses the truth, with errors."""

    truth: list[int]
    chance: random.Random
    mode = DraftMode.COPY
    looks = True
    learned: list[int] = field(default_factory=list)
    looks_at: dict[int, Look] = field(default_factory=dict)

    def guess(
        self, produced: Sequence[Produced], prices: Sequence[float], look: Look = NOWHERE
    ) -> list[int]:
        assert prices
        self.looks_at[len(produced)] = look
        begin = len(produced)
        count = self.chance.randint(0, len(prices))
        known = [*self.truth[begin : begin + count], *[1] * count][:count]
        return [t if self.chance.random() < 0.8 else self.chance.randrange(SIZE) for t in known]

    def learn(self, outputs: Sequence[int], kept: int) -> None:
        self.learned.append(kept)


@dataclass
class Case:
    """One session: what it asks for, and what it has heard."""

    memory: torch.Tensor
    options: GenerationOptions
    limit: int
    start: tuple[int, ...]
    late: int
    heard: list[News] = field(default_factory=list)

    def target(self, decoder: NativeDecoder) -> Target:
        detokenizer: Any = SimpleNamespace(
            add=lambda token: chr(97 + token % 5), finish=lambda: ".", peek=lambda token: "?"
        )
        target = Target(self.start, decoder.begin(self.memory), detokenizer, POSITIONS)
        target.source = tuple(SourcePiece(t % SIZE, 0, 0) for t in range(self.memory.shape[0]))
        return target


@pytest.fixture(scope="module")
def model() -> Transformer:
    torch.manual_seed(0)
    made = random_model(SIZE, d_model=WIDTH, max_positions=POSITIONS)
    with torch.no_grad():  # targets vary, and ends come in the middle of drafts, too
        made.decoder.embedding.tokens.weight.mul_(5)
        made.decoder.output.weight[1] *= 1.5
    return made


@pytest.fixture(scope="module", params=["int8", "fp32"])
def decoder(model: Transformer, request: pytest.FixtureRequest) -> Iterator[NativeDecoder]:
    precision: Precision = request.param
    made = NativeDecoder(model.decoder, precision, 2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference(model: Transformer, decoder: NativeDecoder) -> Iterator[NativeDecoder]:
    made = NativeDecoder(model.decoder, decoder.precision, 1, isa=InstructionSet.AVX2)
    yield made
    made.close()


def case_of(chance: random.Random) -> Case:
    wishes: dict[str, Any] = {"min_new_tokens": chance.choice((0, 3, 20, 40))}
    if chance.random() < 0.4:
        wishes["stop"] = tuple(
            "".join(chance.choices("abcde", k=chance.randint(1, 4))) for _ in range(2)
        )
    if chance.random() < 0.3:
        wishes |= {"temperature": 0.7, "top_k": 20, "seed": chance.randrange(9)}
    if chance.random() < 0.3:
        wishes |= {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3}
    elif chance.random() < 0.4:
        wishes["no_repeat_ngram_size"] = chance.choice((1, 2, 3))
    if chance.random() < 0.2:
        wishes["suppressed_tokens"] = tuple(chance.sample(range(3, SIZE), 9))
    if chance.random() < 0.3:
        wishes |= {"alternatives": 2, "attention": True}
    memory = torch.randn(
        chance.randint(1, 40), WIDTH, generator=torch.Generator().manual_seed(chance.randrange(99))
    )
    start = tuple(chance.choices(range(3, SIZE), k=chance.randint(1, 5)))
    limit = chance.choice((1, 2, 7, 20, 47, 60))
    return Case(memory, GenerationOptions(**wishes), limit, start, chance.randrange(12))


def alone(decoder: NativeDecoder, case: Case) -> tuple[Target, list[News]]:
    """The plain loop, without company."""
    target = case.target(decoder)
    decoding = Sequential(target, case.options, case.limit, VOCABULARY)
    heard = list[News]()
    while not decoding.finished:
        assert not step(decoder, [decoding], VOCABULARY.never)
        heard += decoding.news()
    return target, heard


def way(case: Case, target: Target, truth: list[int], chance: random.Random) -> Decoding:
    """Plain, or one of the ways to guess, or parallel without a limit where that may be."""
    guesser = Noisy(truth, random.Random(chance.random()))
    options, limit = case.options, case.limit
    ways = ["plain", "noisy", "noisy", "copy", "jacobi", "parallel"]
    chosen = chance.choice(ways if options.plain and not options.bans else ways[:-1])
    if chosen == "noisy":
        return Speculative(target, options, limit, VOCABULARY, guesser, EAGER)
    changes: dict[str, Any] = {"draft": DraftMode.OFF}
    if chosen == "parallel":
        changes = {"mode": DecodingMode.PARALLEL}
    elif chosen != "plain":
        changes = {"draft": DraftMode(chosen)}
    wished = {name: getattr(options, name) for name in options.__dataclass_fields__} | changes
    wanted = GenerationOptions(**wished)
    return decoding_for(target, wanted, limit, VOCABULARY, drafting=EAGER)


def run_together(
    decoder: NativeDecoder, cases: list[Case], decodings: list[Decoding], chance: random.Random
) -> None:
    """Step random parts of those that are there until all have finished."""
    turn = 0
    while not all(decoding.finished for decoding in decodings):
        turn += 1
        able = [
            i
            for i, (case, decoding) in enumerate(zip(cases, decodings, strict=True))
            if case.late < turn and not decoding.finished
        ]
        if not able:
            continue
        chosen = chance.sample(able, chance.randint(1, len(able)))
        assert not step(decoder, [decodings[i] for i in chosen], VOCABULARY.never)
        for i in chosen:
            cases[i].heard += decodings[i].news()


@pytest.mark.parametrize("seed", range(6))
@torch.inference_mode()
def test_no_guess_changes_a_bit(
    decoder: NativeDecoder, reference: NativeDecoder, seed: int
) -> None:
    chance = random.Random(seed)
    drafted, kept, seen = 0, 0, set[int]()
    for _ in range(6):
        cases = [case_of(chance) for _ in range(chance.randint(1, 9))]
        expected = [alone(reference, case) for case in cases]
        targets = [case.target(decoder) for case in cases]
        seen |= {token.id for truth, _ in expected for token in truth.produced}
        decodings = [
            way(case, target, [token.id for token in truth.produced], chance)
            for case, target, (truth, _) in zip(cases, targets, expected, strict=True)
        ]
        run_together(decoder, cases, decodings, chance)
        for case, target, decoding, (truth, heard) in zip(
            cases, targets, decodings, expected, strict=True
        ):
            assert case.heard == heard
            assert (target.produced, target.end) == (truth.produced, truth.end)
            assert target.state.length == truth.state.length
            assert same(own_of(target.state), own_of(truth.state))
            drafted, kept = drafted + drafts_of(decoding)[0], kept + drafts_of(decoding)[1]
    assert len(seen) > 20
    assert 20 < kept < drafted, "some guesses were kept and some were not"


@torch.inference_mode()
def test_right_guesses_save_steps(decoder: NativeDecoder) -> None:
    case = Case(torch.randn(9, WIDTH), GenerationOptions(min_new_tokens=40), 40, (3,), 0)
    truth = [token.id for token in alone(decoder, case)[0].produced]
    target, steps = case.target(decoder), 0
    guesser = Noisy(truth, random.Random(0))
    guesser.guess = lambda produced, prices, look=NOWHERE: truth[len(produced) :][: len(prices)]  # type: ignore[method-assign]
    decoding = Speculative(target, case.options, 40, VOCABULARY, guesser, EAGER)
    while not decoding.finished:
        step(decoder, [decoding], VOCABULARY.never)
        steps += 1
    assert [token.id for token in target.produced] == truth
    assert steps == 3, "16 guesses and one token more, twice, and the rest"
    assert (decoding.drafted, decoding.kept) == (37, 37)


@pytest.mark.parametrize("options", [{}, {"no_repeat_ngram_size": 3}], ids=["bare", "filtered"])
@torch.inference_mode()
def test_a_guesser_is_told_where_the_model_looked(
    decoder: NativeDecoder, options: dict[str, Any]
) -> None:
    wanted = GenerationOptions(min_new_tokens=40, attention=True, **options)
    case = Case(torch.randn(23, WIDTH), wanted, 40, (3,), 0)
    produced = alone(decoder, case)[0].produced
    guesser = Noisy([token.id for token in produced], random.Random(0))
    plain = GenerationOptions(min_new_tokens=40, **options)
    decoding = Speculative(case.target(decoder), plain, 40, VOCABULARY, guesser, EAGER)
    while not decoding.finished:
        step(decoder, [decoding], VOCABULARY.never)
    assert decoding.target.produced == [token._replace(details=None) for token in produced]
    assert guesser.looks_at.pop(0) == NOWHERE
    assert 3 < len(guesser.looks_at) < 40
    for known, look in guesser.looks_at.items():
        details = produced[known - 1].details
        assert details is not None
        weights = details.attention.tolist()
        assert look == (weights.index(max(weights)), max(weights))


@torch.inference_mode()
def test_passes_are_limited_and_their_last_word_counts(decoder: NativeDecoder) -> None:
    case = Case(torch.randn(9, WIDTH), GenerationOptions(min_new_tokens=30), 30, (3,), 0)
    truth = [token.id for token in alone(decoder, case)[0].produced]
    passes, agreement = {}, {}
    for most in (1, 2, 4, None):
        options = GenerationOptions(min_new_tokens=30, mode=DecodingMode.PARALLEL, max_passes=most)
        target = case.target(decoder)
        decoding = decoding_for(target, options, 30, VOCABULARY)
        passes[most], heard = 0, list[News]()
        while not decoding.finished:
            step(decoder, [decoding], VOCABULARY.never)
            passes[most] += 1
            heard += decoding.news()
        ids = [token.id for token in target.produced]
        assert [event[1].id for event in heard if isinstance(event, tuple)] == ids
        assert len(ids) == 30
        agreement[most] = sum(a == b for a, b in zip(ids, truth, strict=True))
        again = case.target(decoder)
        again.produced = list(target.produced)
        decoder.advance([again.pending], [again.state])
        assert same(own_of(target.state), own_of(again.state)[..., : target.state.length, :]), (
            "what it keeps belongs to what it said"
        )
    blocks = 2  # of 22 places, and of the 8 that are left
    assert passes[1] == blocks
    assert passes[2] == 2 * blocks
    assert passes[None] <= 30
    assert agreement[None] == 30
    assert agreement[1] < 30
