"""The benchmarks' own arithmetic: ratios by round, and figures as plain lines."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import page
from benchmarks.invariance import Comparison
from benchmarks.measuring import Contestant, Report, Sample, fastest, interleaved


def test_contestants_take_turns_and_are_warm_when_timed() -> None:
    calls: list[str] = []
    contestants = {
        name: Contestant(partial(calls.append, name), partial(calls.append, f"warm {name}"))
        for name in ("a", "b")
    }
    samples = interleaved(contestants, rounds=2)
    assert calls == ["warm a", "a", "warm b", "b"] * 2
    assert [len(sample.seconds) for sample in samples.values()] == [2, 2]


def test_there_is_one_round_however_long_it_takes() -> None:
    contestant = Contestant(lambda: None, lambda: None)
    assert len(interleaved({"a": contestant}, 5, most_seconds=0.0)["a"].seconds) == 1


def test_the_fastest_is_found() -> None:
    assert fastest({"slow": lambda: time.sleep(0.2), "quick": lambda: None}) == "quick"


def test_a_sample_knows_its_middle_and_its_spread() -> None:
    sample = Sample((2.0, 1.0, 4.0))
    assert (sample.median, sample.spread) == (2.0, 4.0)


def test_figures_are_plain_numbers(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    report = Report("decode")
    report.figure("decode.b1.vs_floor", 0.81254)
    report.figure("invariance.values", 9437376)
    assert capsys.readouterr().out == "decode.b1.vs_floor 0.8125\ninvariance.values 9437376\n"
    report.write(tmp_path / "decode.json")
    written = json.loads((tmp_path / "decode.json").read_text())
    assert written["figures"]["invariance.values"] == 9437376
    assert written["machine"]["cores"] >= 1


def test_a_single_bit_is_seen() -> None:
    comparison = Comparison()
    one = torch.ones(3, 4)
    other = one.clone()
    other.view(torch.int32)[1, 2] ^= 1
    comparison.add(one, one.clone())
    assert comparison.differing_bits == 0
    comparison.add(one, other)
    assert (comparison.values, comparison.differing_bits) == (24, 1)


def test_the_page_says_what_the_results_say() -> None:
    for path, content in page.pages(page.load(page.RESULTS)).items():
        assert path.read_text(encoding="utf-8") == content, f"{path}: run `make docs`"
