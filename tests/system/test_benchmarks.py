"""Every benchmark runs and prints the figures that are watched, here on a tiny model."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ctranslate2", reason="a peer, installed by `make dev`")
shapes: Any = importlib.import_module("benchmarks.shapes")
reports: Any = importlib.import_module("benchmarks.report")

FIGURES = {
    "decode": "decode.b2.vs_ctranslate2 decode.b2.vs_floor decode.b2.vs_hf"
    " decode.int8_error_vs_ctranslate2",
    "request": "request.b2.vs_ctranslate2",
    "more_shapes": "decode.tiny.b2.vs_ctranslate2 request.tiny.b2.vs_ctranslate2",
    "serve": "serve.s2.vs_ctranslate2_server serve.s2.vs_ctranslate2_batching_server"
    " serve.s2.vs_ctranslate2_offline"
    " serve.s2.ttft_vs_batching_server serve.s2.itl_p99_over_p50"
    " serve.s2.ours.decoder.cpu_us_per_token serve.ours.encoder.peak_mib",
    "open_loop": "serve.open.r20.ours.request_p99_ms"
    " serve.open.r20.ctranslate2_batching_server.request_p99_ms",
    "split_tax": "split_tax.added_ms split_tax.added_ttft_ms split_tax.s2.throughput_ratio",
    "idle": "idle.s32.grown_over_counted idle.s32.step_time_ratio",
    "speculative": "speculative.overlap60_speedup speculative.overlap30_speedup"
    " speculative.plain_speedup speculative.differing_tokens speculative.loop.plain_speedup"
    " speculative.plain.overlap speculative.loop.chrf speculative.parallel_1.chrf"
    " speculative.parallel_1.speed_vs_loop",
    "encode": "encode.vs_hf encode.vs_ctranslate2 encode.vs_floor encode.floor_vs_hf"
    " encode.hf_padding",
    "handoff": "handoff.reference_mb_s handoff.shm_mb_s handoff.sentence_ms"
    " handoff.paths.s16.chunks.open_p95_ms",
    "wire_types": "wire_types.i8.identical wire_types.i8.chrf_difference wire_types.f16.chrf_to_f32"
    " wire_types.f32.chrf wire_types.bf16.row_bytes",
    "isolation": "isolation.itl_p99_ratio isolation.idle_vs_alone_p99"
    " isolation.one_process_itl_p99_ratio fanout.encode_work_ratio",
    "modes": "modes.beam5.b2.vs_ctranslate2 modes.sampling_vs_greedy modes.logprobs_vs_plain"
    " modes.mixed_vs_greedy",
    "glossaries": "glossaries.odd.terms_present glossaries.odd.chrf_to_plain"
    " glossaries.usual.terms_present glossaries.usual.chrf_gain glossaries.usual.steps",
    "families": "families.tiny.memory.encoder_mib families.tiny.memory.both_mib"
    " families.tiny.memory.ctranslate2_mib families.tiny.b1.tokens_per_second"
    " families.tiny.b1.vs_ctranslate2 families.tiny.b1.ttft_ms families.tiny.b2.ttft_vs_ctranslate2"
    " families.tiny.b1.vs_hf families.hearing.memory.decoder_mib families.hearing.b1.vs_ctranslate2"
    " families.hearing.b1.vs_hf",
    "invariance": "invariance.values invariance.differing_bits invariance.control_differing_bits",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("benchmarks")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the models and the plans of all programs tiny."""
    threads = torch.get_num_threads()
    model = shapes.marian_like(1, 1, 64, 128, 320)
    for name in ("marian-base", "tiny"):
        monkeypatch.setitem(shapes.SHAPES, name, model)
    scope = importlib.import_module("benchmarks.decode").Scope((2,), 1, 9.0, ("int8", "fp32"), 2)
    changes: dict[str, dict[str, Any]] = {
        "speculative": {"texts": 6, "rounds": 1, "served": 1, "passes": (1,)},
        "serve": {"streams": (2,), "rounds": 1, "seconds": 0.3, "trial_seconds": 0.1}
        | {"batching": ((1, "2"),)},
        "open_loop": {"rates": (20,), "seconds": 1.0},
        "split_tax": {"streams": 2, "requests": 2, "seconds": 0.3},
        "encode": {"sentences": 16, "slices": 2, "rounds": 1},
        "handoff": {"pulls": 2, "openings": 2, "crowd": 1},
        "wire_types": {"texts": 1},
        "isolation": {"rounds": 1, "seconds": 0.1, "source": 500, "target": 500, "under_way": 0.0},
        "modes": {"batches": (2,), "rounds": 1},
        "idle": {"sessions": 32, "streams": 2, "rounds": 1, "seconds": 0.3},
    }
    for name, change in changes.items():
        module: Any = importlib.import_module(f"benchmarks.{name}")
        plan = dataclasses.replace(module.QUICK, **change)
        monkeypatch.setattr(module, "QUICK", plan)
    _tiny_families(monkeypatch)
    for name in ("decode", "request"):
        monkeypatch.setattr(importlib.import_module(f"benchmarks.{name}"), "QUICK", scope)
    more: Any = importlib.import_module("benchmarks.more_shapes")
    monkeypatch.setattr(more, "QUICK", {"tiny": dataclasses.replace(scope, slow=0)})
    monkeypatch.setattr(importlib.import_module("benchmarks.idle"), "FIRST", 16)
    yield
    torch.set_num_threads(threads)


def _tiny_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a model of text and one of audio stand for the published ones."""
    models: Any = importlib.import_module("benchmarks.family_models")
    whisper: Any = importlib.import_module("benchmarks.whisper_model")
    families: Any = importlib.import_module("benchmarks.families")
    text = models.Published(
        lambda: models.opus_mt(layers=1, width=64, vocabulary=320), models.marian_files, 0, (1, 2)
    )
    audio = models.Published(lambda: whisper.whisper(32, 1, 2), whisper.whisper_files, streams=(1,))
    for name, model in (("tiny", text), ("hearing", audio)):
        monkeypatch.setitem(models.MODELS, name, model)
    monkeypatch.setattr(families, "QUICK", ("tiny", "hearing"))
    monkeypatch.setattr(families, "ROUNDS", 1)
    monkeypatch.setattr(families, "SLOW_ROUNDS", 1)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("scenario", FIGURES)
def test_every_program_prints_its_figures(scenario: str, cache: Path) -> None:
    report = reports.Report(scenario)
    importlib.import_module(f"benchmarks.{scenario}").run(report, cache, True)
    missing = set(FIGURES[scenario].split()) - set(report.figures)
    assert not missing
    assert all(value == value for value in report.figures.values())  # no NaN
