"""The benchmarks' own arithmetic: ratios by round, and figures as plain lines."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import family_table, measuring, page
from benchmarks.invariance import Comparison
from benchmarks.measuring import Contestant, Report, Sample, fastest, interleaved


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "PAUSE", 0.0)


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


def test_a_turn_begins_when_the_threads_of_the_one_before_have_stopped_spinning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(measuring, "PAUSE", 0.25)
    monkeypatch.setattr("time.sleep", lambda seconds: calls.append(f"sleep {seconds}"))
    interleaved({"a": Contestant(lambda: calls.append("a"), lambda: calls.append("warm"))}, 1)
    assert calls == ["sleep 0.25", "warm", "a"]


def test_a_part_of_a_scenario_is_named_by_how_its_figures_begin() -> None:
    report = Report("families", only=("families.t5.b8", "families.nllb.b1.vs_hf"))
    assert report.wants("families.t5.b8.vs_ctranslate2")
    assert report.wants("families.nllb.b1")  # has a part that is wanted
    assert not report.wants("families.nllb.b1.tokens")
    assert not report.wants("families.t5.b1")
    assert Report("families").wants("families.t5.b1")


def test_a_part_is_written_beside_what_is_known_of_the_same_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "families.json"

    def written(value: float, *only: str) -> dict[str, float]:
        report = Report("families", only=only)
        report.figure(f"families.m.b{value}", value)
        report.write(file)
        figures: dict[str, float] = json.loads(file.read_text())["figures"]
        return figures

    written(1, "families.m.b1")
    assert written(2, "families.m.b2") == {"families.m.b1": 1, "families.m.b2": 2}
    monkeypatch.setattr("os.cpu_count", lambda: 99)
    assert written(3, "families.m.b3") == {"families.m.b3": 3}
    assert written(4) == {"families.m.b4": 4}


def test_every_family_has_a_row_with_both_numbers_of_streams() -> None:
    figures = {
        "families.t5-base.b1.vs_ctranslate2": 3.21,
        "families.t5-base.b8.vs_ctranslate2": 2.0,
        "families.t5-base.memory.encoder_mib": 163.7,
        "families.opus-mt.b1.tokens_per_second": 444.4,
    }
    page = family_table.in_page(f"A{family_table.BEGIN}old{family_table.END}Z", figures, "Here.")
    assert page.startswith("A<!--")
    assert page.endswith("-->Z")
    assert "old" not in page
    assert "| t5-base | – / – | 3.2 / 2.0 | – / – | – / – | 164 | – | – | – |" in page
    assert page.index("| opus-mt | 444 / – |") < page.index("| t5-base |")


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
