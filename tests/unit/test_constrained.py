"""Beam search for targets that contain given terms, beside a search through all there are."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from splitformer.errors import InvalidArgumentError
from splitformer.generation import (
    Decoding,
    GenerationOptions,
    Glossary,
    Request,
    Target,
    Vocabulary,
    decoding_for,
    step,
)
from splitformer.generation.terms import lacking
from splitformer.native import Question
from tests.support.reference import Reference

TEXT = "Open the selected file, then close the file."
SIZE = 376


class World:
    """A tiny model, and runs of it."""

    def __init__(self, folder: Path, kernels: str = "auto") -> None:
        self.reference = Reference(folder, kernels=kernels)
        self.decoder = self.reference.decoder
        self.tokenizer = self.reference.checkpoint.tokenizer
        self.vocabulary = Vocabulary(1, self.reference.checkpoint.description.never_generated, SIZE)
        self.glossary = Glossary(self.tokenizer, self.vocabulary)

    @torch.inference_mode()
    def target(self, prefix: str = "", text: str = TEXT) -> Target:
        start = (4, *self.tokenizer.encode_target(prefix))
        detokenizer = self.tokenizer.detokenizer()
        for token in start[1:]:
            detokenizer.add(token)
        target = Target(start, self.decoder.begin(self.reference.memory(text)), detokenizer, 48)
        target.source_text = text
        target.source = tuple(self.reference.checkpoint.encode_source(text))
        return target

    def decoding(self, target: Target, options: GenerationOptions) -> Decoding:
        wanted = self.glossary.wanted(options, target)
        most = options.max_new_tokens or target.max_positions
        return decoding_for(target, options, most, self.vocabulary, wanted=wanted)

    @torch.inference_mode()
    def steps(self, many: list[Decoding], most: int = 1000) -> None:
        for _ in range(most):
            active = [each for each in many if not each.finished]
            if not active:
                return
            failures = step(self.decoder, active, self.vocabulary.never)
            assert not failures, failures

    def found(self, target: Target, **fields: Any) -> list[tuple[str, float]]:
        """Run to the end; return texts, prefix not included, and scores, best first."""
        options = GenerationOptions(**fields)
        self.steps([self.decoding(target, options)])
        assert target.finished_search is not None
        return [(each.text, each.score) for each in target.finished_search.found(options)]


@pytest.fixture(scope="module")
def world(tiny_model: Path) -> World:
    return World(tiny_model)


# --- against all there are ------------------------------------------------------------------------


class Everything:
    """All targets of a few tokens, with their sums of log-probabilities."""

    def __init__(self, world: World, ids: list[int], most: int) -> None:
        self.world, self.ids, self.most = world, ids, most
        self.totals: dict[tuple[int, ...], float] = {(): 0.0}
        self.ends: dict[tuple[int, ...], float] = {}
        for length in range(most):
            self._extend([*itertools.product(ids, repeat=length)])

    @torch.inference_mode()
    def _extend(self, heads: list[tuple[int, ...]]) -> None:
        request = Request()
        for head in heads:
            target = self.world.target()
            output = request.add([*target.start, *head], target.state)
            request.asked[output] = Question(logits=True)
        answer = self.world.decoder.advance(
            request.tokens, request.states, self.world.vocabulary.never, request.asked
        )
        for i, head in enumerate(heads):
            row = answer.logits[i].astype(float) - answer.log_sums[i]
            for token in self.ids:
                self.totals[(*head, token)] = self.totals[head] + float(row[token])
            self.ends[head] = self.totals[head] + float(row[1])

    def best(self, terms: list[str], shortest: int = 0) -> list[tuple[str, float]]:
        """Texts that contain all terms, with the best sum of each target, best first."""
        whole = {ids: total for ids, total in self.totals.items() if len(ids) == self.most}
        ended = {ids: total for ids, total in self.ends.items() if len(ids) >= shortest}
        decode = self.world.tokenizer.decode
        found = [(decode([*ids]), total) for ids, total in (*whole.items(), *ended.items())]
        fine = [each for each in found if all(f" {term} " in f" {each[0]} " for term in terms)]
        return sorted(fine, key=lambda each: -each[1])


@pytest.fixture(scope="module")
def everything(world: World) -> Everything:
    return Everything(world, [264, 296, 290, 265], 4)  # " ", " file", "p", "e"


@pytest.mark.parametrize("shortest", [0, 3])
@pytest.mark.parametrize("target_terms", [["file"], ["pe"], ["file", "pe"], ["pe file"]])
def test_a_beam_wide_enough_finds_the_best(
    world: World, everything: Everything, target_terms: list[str], shortest: int
) -> None:
    sources = ["selected", "close"]
    target = world.target()
    target.source = ()  # no attention: the score is the sum of log-probabilities
    found = world.found(
        target,
        glossary=tuple(zip(sources, target_terms, strict=False)),
        suppressed_tokens=tuple(sorted(set(range(2, SIZE)) - set(everything.ids))),
        num_beams=256,
        num_return_sequences=3,
        length_penalty=0.0,
        max_new_tokens=4,
        min_new_tokens=shortest,
    )
    expected = everything.best(target_terms, shortest)[:3]
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [total for _, total in found] == pytest.approx([total for _, total in expected])


def test_of_what_comes_as_often_as_in_the_source_it_finds_the_best(
    world: World, everything: Everything
) -> None:
    target = world.target()
    target.source, target.source_text = (), "The file."
    options: dict[str, Any] = {
        "suppressed_tokens": tuple(sorted(set(range(2, SIZE)) - set(everything.ids))),
        "num_beams": 256,
        "num_return_sequences": 40,
        "length_penalty": 0.0,
        "max_new_tokens": 4,
    }
    found = world.found(target, glossary=(("file", "file"),), **options)
    often = [text.split().count("file") for text, _ in everything.best(["file"])]
    fine = [e for e, count in zip(everything.best(["file"]), often, strict=True) if count == 1]
    assert max(often[:40]) > 1, "there are likelier ones with more"
    assert [total for _, total in found] == pytest.approx([t for _, t in fine[:40]])
    assert {text.split().count("file") for text, _ in found} == {1}


# --- what holds of every search -------------------------------------------------------------------

GLOSSARIES = [
    (("file", "Datei"),),
    (("open", "öffnen"), ("file", "ファイル")),
    (("the selected file", "die gewählte Größe"), ("file", "Größe"), ("close", "C++")),
    (("open", "Ä b c"), ("the", "Ä"), ("file", "b c"), ("close", "文件")),
]


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"num_beams": 7}, {"min_new_tokens": 30}]
)
@pytest.mark.parametrize("glossary", GLOSSARIES)
def test_all_that_is_found_contains_the_terms(
    world: World, glossary: tuple[tuple[str, str], ...], options: dict[str, Any]
) -> None:
    target = world.target()
    wanted = world.glossary.wanted(GenerationOptions(glossary=glossary), target)
    assert wanted is not None
    found = world.found(target, glossary=glossary, num_return_sequences=2, **options)
    assert len(found) == 2
    assert found[0][0] == target.text
    assert found[0][1] >= found[1][1]
    for text, _ in found:
        assert not any(lacking(wanted.terms, wanted.counts, text)), text


@pytest.mark.parametrize("options", [{}, {"num_beams": 8}, {"max_new_tokens": 12}])
def test_what_stays_as_it_is_comes_no_more_often(world: World, options: dict[str, Any]) -> None:
    glossary = (("%s", "%s"), ("{name}", "{name}"))
    target = world.target(text="Copy %s to {name}: %s")
    for text, _ in world.found(target, glossary=glossary, num_return_sequences=4, **options):
        assert (text.count("%s"), text.count("{name}")) == (2, 1), text


def test_terms_fit_into_just_the_room_they_need(world: World) -> None:
    glossary = (("file", "Datei"),)
    options = GenerationOptions(glossary=glossary)
    wanted = world.glossary.wanted(options, world.target())
    assert wanted is not None
    most = 2 * wanted.terms[0].length
    ((text, _),) = world.found(world.target(), glossary=glossary, max_new_tokens=most)
    assert text.count("Datei") == 2
    with pytest.raises(
        InvalidArgumentError, match=r"options.glossary: must leave room: the terms take 10"
    ):
        world.found(world.target(), glossary=glossary, max_new_tokens=most - 1)


def test_what_a_prefix_contains_need_not_come_again(world: World) -> None:
    glossary = (("file", "Datei"),)
    both = world.found(world.target("Datei, Datei"), glossary=glossary)
    one = world.found(world.target("Eine Datei"), glossary=glossary)
    assert "Datei" in one[0][0]
    assert both != one


def test_a_prefix_is_no_part_of_a_term(world: World) -> None:
    ((text, _),) = world.found(world.target("Datei, Da"), glossary=(("file", "Datei"),))
    assert "Datei" in text


def test_without_its_terms_it_is_greedy(world: World) -> None:
    plain, other = world.target(), world.target()
    world.steps([world.decoding(plain, GenerationOptions())])
    decoding = world.decoding(other, GenerationOptions(glossary=(("tape", "Band"),)))
    assert decoding.width == 1
    world.steps([decoding])
    assert other.produced == plain.produced


def everything_of(target: Target) -> Any:
    search = target.finished_search
    assert search is not None
    options = GenerationOptions(num_beams=4, num_return_sequences=4)
    return target.produced, target.end, [*search.found(options)]


@pytest.mark.parametrize("glossary", GLOSSARIES)
def test_in_company_and_interrupted_it_is_the_same_to_the_bit(
    world: World, glossary: tuple[tuple[str, str], ...]
) -> None:
    if not world.decoder.batch_invariant:
        pytest.skip("promised by the native step only")
    options = GenerationOptions(glossary=glossary)
    alone = world.target()
    world.steps([world.decoding(alone, options)])
    targets = [world.target() for _ in range(3)]
    company = [world.target(), world.target(text="The quick brown fox.")]
    others = [
        world.decoding(company[0], GenerationOptions(temperature=1.0, seed=3)),
        world.decoding(company[1], GenerationOptions(num_beams=3)),
    ]
    for number, target in enumerate(targets):
        for _ in range(number):  # interrupted that often: the states are made anew
            world.steps([world.decoding(target, options), *others], most=3)
        world.steps([world.decoding(target, options), *others])
        assert everything_of(target) == everything_of(alone)


def test_torch_finds_what_the_native_step_finds(world: World, tiny_model: Path) -> None:
    other = World(tiny_model, kernels="torch")
    for glossary in GLOSSARIES:
        native = world.found(world.target(), glossary=glossary, num_return_sequences=4)
        torch_found = other.found(other.target(), glossary=glossary, num_return_sequences=4)
        assert [text for text, _ in native] == [text for text, _ in torch_found]
        assert [score for _, score in native] == pytest.approx(
            [score for _, score in torch_found], rel=1e-4
        )
