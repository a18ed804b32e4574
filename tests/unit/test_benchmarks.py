"""The benchmarks' own arithmetic: ratios by round, and figures as plain lines."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import family_table, measuring, page
from benchmarks.goals import GOALS, Goal, compared
from benchmarks.invariance import Comparison
from benchmarks.measuring import (
    Contestant,
    Match,
    Run,
    Sample,
    Turn,
    counted,
    fastest,
    in_turns,
    interleaved,
    quiet,
    times,
)
from benchmarks.processes import others_cpu
from benchmarks.report import Report


def noting(calls: list[str], name: str, pieces: int = 1, spins: bool = False) -> Contestant:
    """A contestant that notes what it is asked to do."""

    def begin() -> list[Run]:
        calls.append(f"warm {name}")
        return [partial(calls.append, name)] * pieces

    return Contestant(begin, spins)


def test_contestants_are_warm_when_timed_and_take_turns_left_to_chance() -> None:
    calls: list[str] = []
    match = Match.apart({name: noting(calls, name) for name in "ab"}, turns=2)
    samples = interleaved({"m": match}, rounds=20)["m"]
    turns = [calls[i : i + 4] for i in range(0, len(calls), 4)]
    either = (["warm a", "a", "warm b", "b"], ["warm b", "b", "warm a", "a"])
    assert all(turn in either for turn in turns)
    assert all(turn in turns for turn in either)
    assert len(turns) == 40
    assert {len(sample.seconds) for sample in samples.values()} <= set(range(20, 41))


def test_a_company_alternates_piece_by_piece() -> None:
    calls: list[str] = []
    company = {name: noting(calls, name, pieces=3) for name in "ab"}
    samples = interleaved({"m": Match([company])}, rounds=1)["m"]
    assert calls[:2] == ["warm a", "warm b"]
    assert [sorted(calls[i : i + 2]) for i in (2, 4, 6)] == [["a", "b"]] * 3
    assert {len(sample.rounds[0]) for sample in samples.values()} == {3}


def test_all_matches_share_the_rounds() -> None:
    calls: list[str] = []
    matches = {name: Match.apart({name: noting(calls, name)}) for name in "ab"}
    interleaved(matches, rounds=2)
    assert [call for call in calls if len(call) == 1] == ["a", "b", "a", "b"]


def test_there_is_one_round_however_long_it_takes() -> None:
    match = Match.apart({"a": noting([], "a")})
    assert len(interleaved({"m": match}, 5, most_seconds=0.0)["m"]["a"].seconds) == 1


def test_the_fastest_is_found_though_it_stumbles_once() -> None:
    stumbles = iter((0.0, 0.3, 0.0, 0.0))
    tries = {"slow": lambda: time.sleep(0.05), "quick": lambda: time.sleep(next(stumbles))}
    assert fastest(tries) == "quick"


def test_a_sample_knows_its_middle_and_its_spread() -> None:
    sample = Sample(((1.0, 1.0), (0.5, 0.5), (3.0, 1.0)))
    assert (sample.seconds, sample.median, sample.spread) == ((2.0, 1.0, 4.0), 2.0, 4.0)
    assert sample.first_less_second.seconds == (0.0, 0.0, 2.0)


def test_a_ratio_is_the_usual_one_of_pieces_beside_each_other() -> None:
    ours = Sample(((1.0, 3.0), (2.0, 6.0), (1.0, 3.0)))  # the machine is slow in between,
    theirs = Sample(((2.0, 3.0), (4.0, 6.0), (2.0, 99.0)))  # and a core is lost at the end
    assert times(ours, theirs) == pytest.approx((2.0 + 3.0) / (1.0 + 3.0))
    assert times(ours.whole, theirs.whole) == pytest.approx(5 / 4)


def test_turns_that_others_disturbed_do_not_count_while_half_are_left() -> None:
    def shares(*others: float) -> list[float]:
        return [turn.others for turn in quiet([Turn({}, share) for share in others])]

    assert shares(0.0, 0.9, 0.05) == [0.0, 0.05]
    assert shares(0.9, 0.5, 0.7, 0.02) == [0.5, 0.02]
    assert shares(0.8) == [0.8]


def test_who_measures_on_a_busy_machine_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    counted("decode.b8", [Turn({}, 0.0), Turn({}, 0.05), Turn({}, 1.5)])
    assert not capsys.readouterr().err
    counted("decode.b8", [Turn({}, 0.9), Turn({}, 1.5), Turn({}, 1.5)])
    assert capsys.readouterr().err == "decode.b8: other processes took 1.5 cores meanwhile\n"


def test_the_cpu_time_of_others_is_that_of_all_processes_but_this(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stat = "cpu  100 20 30 9999 9999 4 6 70 5 5\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: stat)
    monkeypatch.setattr("time.process_time", lambda: 0.25)
    monkeypatch.setattr("os.sysconf", lambda _: 100)
    assert others_cpu() == pytest.approx(1.6 - 0.25)


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
    cpu = iter((0.0, 0.004, 0.004, 0.006, 0.006, 0.006))  # it spins until the third look
    monkeypatch.setattr("time.process_time", lambda: next(cpu))
    monkeypatch.setattr("time.sleep", lambda _: calls.append("sleep"))
    monkeypatch.setattr(measuring, "others_cpu", lambda: 0.0)
    interleaved({"m": Match.apart({"a": noting(calls, "a", spins=True)})}, 1)
    assert calls == ["warm a", "a", "sleep", "sleep", "sleep"]


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


def test_a_goal_is_met_to_the_digits_that_are_shown() -> None:
    least, most = Goal("a", 0.95), Goal("b", 3, at_most=True)
    assert [least.met(value) for value in (0.9496, 0.9494)] == [True, False]
    assert [most.met(value) for value in (3.004, 3.006)] == [True, False]
    assert (least.wanted, most.wanted) == ("at least 0.95", "at most 3")


def test_every_goal_is_measured_and_one_that_is_missed_has_a_record() -> None:
    figures = {
        name: value
        for each in page.load(page.RESULTS).values()
        for name, value in each["figures"].items()
    }
    assert {goal.figure for goal in GOALS} <= figures.keys()
    missed = [goal for goal, value in compared(figures) if not goal.met(value)]
    assert all((page.ROOT / f"docs/decisions/{goal.record}.md").is_file() for goal in missed)


def test_jobs_in_turns_are_compared_round_by_round() -> None:
    calls: list[tuple[str, str]] = []

    def run(job: str, way: str) -> float:
        calls.append((job, way))
        slow = 9.0 if len(calls) > 12 else 1.0  # the machine's speed changes for the third round
        return slow * {"long": 4.0, "short": 1.0}[job] * (2.0 if way == "plain" else 1.0)

    taken = in_turns(["long", "short"], ["plain", "quick", "other"], 3, run)
    assert sorted(calls) == sorted(3 * [(j, w) for j in ("long", "short") for w in taken])
    assert taken["plain"].rounds == ((8.0, 2.0), (8.0, 2.0), (72.0, 18.0))
    assert times(taken["quick"], taken["plain"]) == pytest.approx(2.0)
    assert times(taken["other"], taken["quick"]) == pytest.approx(1.0)
