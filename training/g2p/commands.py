"""``python -m training g2p fetch|warm-start|train|export|evaluate|card|all``."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.console import run_until_stopped
from training.g2p import dictionary
from training.g2p.card import model_card
from training.g2p.dictionary import arrays
from training.g2p.results import (
    VARIANTS,
    lines,
    measure,
    pronounce_samples,
    read_facts,
    regressions,
    sample,
)
from training.g2p.run import export as export_model, make_trainer, read_parts, train_settings
from training.results import read_results, variants_named, write_results
from training.split import Part
from training.warm_start import Shipped

app = typer.Typer(help="The pronunciation model.", no_args_is_help=True)
console = Console()

Work = Annotated[Path, typer.Option("--work", help="Folder of all work data.")]
WORK = Path(".cache/training/g2p")
Model = Annotated[Path, typer.Option("--model", help="Folder of the exported model.")]
MODEL = Path("models/splitformer_models/en-g2p")
Results = Annotated[Path, typer.Option("--results", help="JSON file of measured results.")]
RESULTS = Path("training/logs/g2p-results.json")
CURVE = Path("training/logs/g2p-curve.csv")


@app.command()
def fetch(work: Work = WORK) -> None:
    """Download the dictionary; record its version and checksum."""
    console.print(f"{asdict(dictionary.fetch(work))}")


@app.command()
def warm_start(work: Work = WORK, model: Model = MODEL) -> None:
    """Take the exported model's weights as the checkpoint that train goes on from."""
    tokens = int(arrays(read_parts(work)[Part.TRAINING]).target_tokens.size)
    settings = train_settings(1.0, 1).optimizer
    progress = Shipped(model, CURVE).warm_start(work / "run", tokens, settings)
    console.print(f"{asdict(progress)}")


@app.command()
def train(
    work: Work = WORK,
    minutes: Annotated[float, typer.Option(help="Active minutes, resumed ones included.")] = 60.0,
    threads: Annotated[int, typer.Option(help="Threads that compute gradients.")] = 2,
    peak: Annotated[float, typer.Option(help="Learning rates, as shares of the usual ones.")] = 1.0,
    dropout: Annotated[float, typer.Option(help="Share of activations dropped.")] = 0.2,
) -> None:
    """Train, or go on training, until the minutes are used up; Ctrl-C leaves a checkpoint."""
    settings = train_settings(minutes, threads)
    optimizer = settings.optimizer.scaled(peak)
    settings = replace(settings, dropout=dropout, optimizer=optimizer)
    run_until_stopped(console, minutes, lambda report: make_trainer(work, settings, report))


@app.command()
def export(work: Work = WORK, model: Model = MODEL) -> None:
    """Write the newest checkpoint as a model folder."""
    export_model(work, model)


@app.command()
def evaluate(
    work: Work = WORK,
    model: Model = MODEL,
    results: Results = RESULTS,
    quick: Annotated[bool, typer.Option(help="A tenth of the words.")] = False,
    update: Annotated[bool, typer.Option(help="Write the results, compare nothing.")] = False,
    variant: Annotated[list[str] | None, typer.Option(help="These only: int8-beam5, …")] = None,
) -> None:
    """Measure the model through the services; fail if it is worse than the committed results."""
    if not (work / dictionary.TEXT_FILE).exists():
        dictionary.fetch(work)
    words = sample(read_parts(work)[Part.TEST], 0.1 if quick else 1.0)
    measured = measure(model, words, variants_named(variant, VARIANTS))
    committed, key = read_results(results), "quick" if quick else "test"
    print("\n".join(lines(measured)))
    if update:
        committed[key] = committed.get(key, {}) | measured
        committed["samples"] = pronounce_samples(model, words)
        _add_run(work, model, committed)
        write_results(committed, results)
        return
    worse = list(regressions(measured, committed.get(key, {})))
    for line in worse:
        console.print(f"worse: {line}", highlight=False)
    raise typer.Exit(bool(worse))


def _add_run(work: Path, model: Path, results: dict[str, object]) -> None:
    """Adds what the training run has cost, and keeps its curve, if there was one."""
    if (work / "run" / "checkpoint.pt").exists():
        results["facts"] = read_facts(work, model)
        shutil.copyfile(work / "run" / "curve.csv", CURVE)


@app.command()
def card(model: Model = MODEL, results: Results = RESULTS) -> None:
    """Write the model card from measured results."""
    (edition,) = json.loads((model / "sources.json").read_text(encoding="utf-8"))["packages"]
    text = model_card(read_results(results), edition)
    (model / "README.md").write_text(text, encoding="utf-8")


@app.command("all")
def everything(work: Work = WORK, model: Model = MODEL, minutes: float = 60.0) -> None:
    """Do everything, from the dictionary to the model card."""
    fetch(work)
    train(work, minutes)
    export(work, model)
    evaluate(work, model, update=True)
    card(model)
