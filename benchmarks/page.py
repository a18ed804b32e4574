"""Write docs/benchmarks.md and its plots from benchmarks/results: `python -m benchmarks.page`.

The results are what `python -m benchmarks --json benchmarks/results` writes. With `--check` nothing
is written; the exit status is 1 if a file differs from what would be.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import family_table
from benchmarks.chart import Chart, Point
from benchmarks.goals import compared

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
MODELS = ROOT / "docs" / "models.md"
IMAGES = ROOT / "docs" / "images"

INTRODUCTION = """# Benchmarks

Splitformer and its peers with the same weights, on the same machine, in one run: `make bench`.
`python -m benchmarks NAME` runs one of the benchmarks, and `--quick` a shorter version. This page
is written by `python -m benchmarks.page` from the results of
`python -m benchmarks --json benchmarks/results`.

The speed of a machine changes within seconds, so times from different runs cannot be compared.
Contestants therefore take short turns in random order, and a ratio is the median of the ratios of
turns that were timed next to each other ([record 0048](decisions/0048-ratios-that-repeat.md)). All
contestants share the same cores, clients included. CTranslate2 runs with the thread layout that was
fastest in a trial.

Figures named `vs_…` say how many times faster we are. `vs_floor` is the share of the time that the
bare matrix products take: for decoding with our kernels or with FBGEMM, whichever is faster; for
encoding with ours.
"""

WANTED = """## Goals

Goals are for two cores, in one run; measured values come from the tables below. Where a figure
falls short, the record has the profile that explains it, and says what was tried.
"""

SECTIONS: dict[str, str] = {
    "decode": "Decoder steps alone, Marian-base shape (6 + 6 layers, width 512, vocabulary 32,000),"
    " random weights, int8, two threads.",
    "request": "The same, but including the encoding of 24 source tokens, in one process.",
    "more-shapes": "Other shapes: the embedded model, 12 + 2 layers, and one like NLLB-600M.",
    "serve": "Concurrent gRPC streams, closed loop, 24 source and 32 target tokens, Marian-base"
    " shape. CTranslate2 has no server, so it runs behind a minimal `grpc.aio` server, with each"
    " request by itself or with request batching. Its offline batches run without server and"
    " clients. Without batching, times to the first token cover only the requests that got one"
    " before a slice ended. `ours` runs the services as `splitformer serve` does.",
    "open-loop": "Requests arrive at random times, regardless of earlier ones: the embedded model,"
    " real sentences, targets until the model ends them. A line ends where requests remained"
    " unfinished, that is, where the contestant was overloaded.",
    "split-tax": "What two services, in the layout of `splitformer serve`, cost compared with the"
    " same engines in one process behind one RPC.",
    "encode": "The encoder alone on 512 sentences of 3 to 120 tokens, Marian-base shape, two"
    " threads, against Hugging Face's in float32 (padded batches of 32) and CTranslate2's in int8"
    " with one forced target token. `floor_vs_hf` is what `vs_hf` would be if only the bare int8"
    " products took time; no encoder with these kernels can exceed it on this machine.",
    "handoff": "A memory of 1500 x 512 in f16, pulled from another process in chunks over loopback,"
    " and mapped from shared memory, each including one full read (`shm_mb_s` leaves out the call"
    " that requests it). Then `OpenSession` by reference for 24 tokens, in milliseconds: by both"
    " paths on a tiny model, and in the Marian-base shape with two services and with one process;"
    " `sentence_ms` is the difference.",
    "wire-types": "300 real English sentences translated by the embedded model, int8, greedy,"
    " through both services, with memories of each wire type, compared with f32: the share of"
    " identical translations (`identical_sentences`: of our own 60), chrF2 with the f32"
    " translations as references, and the difference in chrF2 against 60 German references. An int8"
    " decoder rounds rows as i8 does, so i8 changes nothing. `row_bytes` is for width 256.",
    "isolation": "Gaps between the tokens of eight streams while the encoder service is stopped"
    " (alone), idle, and busy with 64 sources of 256 tokens, in the layout of `splitformer serve`"
    " and with both engines in one process. Ratios are of 99th percentiles. `fanout`: tokens"
    " encoded for five languages, divided by those for one.",
    "idle": "1,000 open sessions that nobody uses: how much the process grows compared with the"
    " bytes that the service counts for them, and how long steps take compared with a service"
    " without them.",
    "speculative": "Speculative decoding compared with plain decoding: the embedded model, one"
    " stream through both services and, under `loop`, the loop alone on two threads. Speculative"
    " streams carry the tokens of a step in one message (`max_tokens_per_message`), or, under"
    " `_by_token`, in one message each, which is the default; a plain step has only one token."
    " Targets are grouped by the share of their tokens that also occur in the source. For each"
    " text the median of the ratios counts. `_rows_cost` is the cost of a step with this many rows"
    " of one sequence over a step with one row, as measured at start; it decides how many tokens to"
    " guess."
    " Parallel decoding: chrF2 of 60 sentences into German next to the loop's, and the speed"
    " compared with the loop, by number of passes.",
    "modes": "Decoding methods in the Marian-base shape with random weights, int8, two threads, 24"
    " source and 32 target tokens: beam search including the encoding; and, over memories encoded"
    " beforehand, sampling (`top_k` 50, `top_p` 0.9), plain temperature (`whole_row`), and 32 rows"
    " of all methods mixed, compared with as many greedy rows in the same loop.",
    "glossaries": "Our own sentences translated into German by the embedded model, int8, with"
    " glossaries of words it would not have used (`odd`) and of words from our translations"
    " (`usual`): the share of terms in the output with and without the glossary, chrF2 against the"
    " output without one, how much a glossary adds to chrF2 against our translations, and"
    " characters and steps compared with those without.",
    "invariance": "Values computed alone and in random company, and the number of bits in which"
    " they differ. The control scales activations by the whole batch, as other engines do, and must"
    " differ.",
    "families": "Published models in their real sizes with random weights, as folders: 24 source"
    " tokens or 30 s of audio, 32 target tokens, one and eight streams, two threads, in one"
    " process, against CTranslate2's own conversion in int8 and Transformers in float32. Peak"
    " memory, in MiB, is that of a process that imports everything a service does, loads one half"
    " (or both) and uses it once; CTranslate2's process has only CTranslate2.",
}
"""What each scenario measures, in the order of the page."""


def main() -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = 0
    for path, content in pages(load(RESULTS)).items():
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        if check:
            print(f"{path}: is not what the results say", file=sys.stderr)
            stale = 1
        else:
            path.write_text(content, encoding="utf-8")
    return stale


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """Read all results, by scenario."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def pages(results: Mapping[str, dict[str, Any]]) -> dict[Path, str]:
    """Return what every file should hold."""
    files, parts = {}, [INTRODUCTION, WANTED, "\n".join(_wanted(results))]
    order = [name for name in SECTIONS if name in results]
    for name in [*order, *(name for name in results if name not in SECTIONS)]:
        figures = results[name]["figures"]
        parts += [f"## {name}", SECTIONS.get(name, ""), _machine(results[name])]
        for chart_name, chart in charts(name, figures).items():
            files[IMAGES / f"{chart_name}.svg"] = chart.draw()
            parts.append(f"![{chart.title}](images/{chart_name}.svg)")
        parts.append("\n".join(_table(figures)))
    files[PAGE] = "\n\n".join(part.strip() for part in parts if part) + "\n"
    if families := results.get("families"):
        page = MODELS.read_text(encoding="utf-8")
        files[MODELS] = family_table.in_page(page, families["figures"], _machine(families))
    return files


def _wanted(results: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    figures = {name: value for each in results.values() for name, value in each["figures"].items()}
    yield "| figure | goal | measured | if it falls short |"
    yield f"|{'---|' * 4}"
    for goal, value in compared(figures):
        record = f"[{goal.record[:4]}](decisions/{goal.record}.md)" if goal.record else "yes"
        missed = "" if goal.met(value) else record
        yield f"| `{goal.figure}` | {goal.wanted} | {shown(value)} | {missed} |"


def _machine(result: Mapping[str, Any]) -> str:
    facts, brief = result["machine"], " with `--quick`" if result["quick"] else ""
    cpu = ", ".join(facts["cpu"]) or "unknown"
    features = ", ".join(facts["features"]) or "none of those that matter"
    return (
        f"Measured{brief} on {facts['cores']} cores ({cpu}; {features}), Python {facts['python']},"
        f" torch {facts['torch']}."
    )


def charts(scenario: str, figures: Mapping[str, float]) -> dict[str, Chart]:
    """Return the charts of a scenario, by file name."""
    if scenario in ("decode", "request"):
        lines = {
            "CTranslate2 int8": series(figures, scenario, "b", "vs_ctranslate2"),
            "CTranslate2 fp32": series(figures, scenario, "b", "vs_ctranslate2_fp32"),
        }
        title = "Steps" if scenario == "decode" else "Requests"
        chart = Chart(f"{title}: how many times faster", "sequences per batch", "times", lines)
        return {f"benchmark-{scenario}": chart}
    if scenario == "serve":
        return {"benchmark-serve": _served(figures)}
    if scenario == "open-loop":
        return {"benchmark-open-loop": _offered(figures)}
    return {}


def _served(figures: Mapping[str, float]) -> Chart:
    contestants = {
        "Splitformer": "ours",
        "CTranslate2, thin server": "ctranslate2_server",
        "… with request batching": "ctranslate2_batching_server",
        "… offline, no server": "ctranslate2_offline",
    }
    lines = {
        label: series(figures, "serve", "s", f"{name}.tokens_per_second")
        for label, name in contestants.items()
    }
    return Chart("Concurrent streams", "streams", "target tokens per second", lines)


def _offered(figures: Mapping[str, float]) -> Chart:
    contestants = {
        "Splitformer": "ours",
        "CTranslate2, batching": "ctranslate2_batching_server",
    }
    lines = {
        f"{label}, {what}": series(figures, "serve.open", "r", f"{name}.{key}_p99_ms")
        for label, name in contestants.items()
        for what, key in (("whole", "request"), ("first token", "ttft"))
    }
    return Chart("The slowest 1 % under offered load", "requests per second", "p99, ms", lines)


def series(figures: Mapping[str, float], prefix: str, letter: str, name: str) -> list[Point]:
    """Collect the points (N, value) of figures `PREFIX.LETTER N.NAME`, by N."""
    pattern = re.compile(rf"{re.escape(prefix)}\.{letter}(\d+)\.{re.escape(name)}")
    found = ((pattern.fullmatch(key), value) for key, value in figures.items())
    return sorted((float(match[1]), value) for match, value in found if match)


def _table(figures: Mapping[str, float]) -> Iterator[str]:
    """Lay figures out: those that differ in a size only, `.b8.` and `.b32.`, share a row."""
    rows: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        size = re.search(r"\.([bsr]\d+)\.", name)
        row = name.replace(f".{size[1]}.", ".N.") if size else name
        rows.setdefault(row, {})[size[1] if size else ""] = value
    columns = sorted({c for row in rows.values() for c in row if c}, key=lambda c: int(c[1:]))
    if not columns:
        yield from _lines(("figure", "value"), [(r, [v[""]]) for r, v in rows.items()])
        return
    sized = [(r, [v.get(c) for c in columns]) for r, v in rows.items() if "" not in v]
    yield from _lines(("figure", *columns), sized)
    single = [(r, [v[""]]) for r, v in rows.items() if "" in v]
    if single:
        yield ""
        yield from _lines(("figure", "value"), single)


def _lines(
    head: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]
) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for name, values in rows:
        yield f"| `{name}` | {' | '.join(map(shown, values))} |"


def shown(value: float | None) -> str:
    """Three digits, no more: that is what one run is good for."""
    if value is None:
        return ""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
