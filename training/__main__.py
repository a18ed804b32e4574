"""The command line: ``python -m training fetch|mine|tokenizer|train|export|evaluate|card|all``."""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from training.caches import compare as compare_caches, lines as cache_lines
from training.card import model_card
from training.console import run_until_stopped
from training.curve import read_curve
from training.evaluate import read_examples, sample
from training.export import SOURCES_FILE, export as export_model
from training.fetch import fetch as fetch_packages, read_manifest
from training.g2p.commands import app as g2p
from training.mine import mine as mine_sources
from training.prepare import prepare, prepare_like, split_corpus
from training.recipe import LANGUAGES, recipe as named_recipe
from training.regressions import int8_losses, lines, regressions
from training.results import (
    measure,
    read_facts,
    read_results,
    read_sentences,
    translate_samples,
    variants_named,
    write_results,
)
from training.runtime import Workspace, bf16_pays, make_trainer
from training.split import Part
from training.tokenizer import TokenizerSettings
from training.train import TrainSettings
from training.warm_start import Shipped

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
app.add_typer(g2p, name="g2p")
console = Console()

RecipeName = Annotated[str, typer.Option("--recipe", help="Sources: minimal or default.")]
Work = Annotated[Path, typer.Option("--work", help="Folder of all work data.")]
WORK = Path(".cache/training")
Model = Annotated[Path, typer.Option("--model", help="Folder of the exported model.")]
MODEL = Path("models/splitformer_models/en-multi")
Results = Annotated[Path, typer.Option("--results", help="JSON file of measured results.")]
RESULTS = Path("training/logs/results.json")
CURVE = Path("training/logs/curve.csv")
SENTENCES = Path("benchmarks/sentences.txt")


@app.command()
def fetch(recipe: RecipeName = "default", work: Work = WORK) -> None:
    """Download and unpack the packages; record versions and checksums."""
    workspace = Workspace(work)
    found = fetch_packages(named_recipe(recipe), workspace)
    console.print(f"{len(found)} packages, {sum(p.size for p in found) / 1e6:.0f} MB")


@app.command()
def mine(recipe: RecipeName = "default", work: Work = WORK, workers: int = 2) -> None:
    """Mine the unpacked packages into clean pairs."""
    workspace = Workspace(work)
    reports = mine_sources(named_recipe(recipe), workspace.extracted, workspace.pairs, workers)
    table = Table("source", *LANGUAGES, "rejected")
    for report in reports:
        counts = [str(report.kept.get(language, 0)) for language in LANGUAGES]
        table.add_row(report.source, *counts, str(sum(report.rejected.values())))
    console.print(table)


@app.command()
def tokenizer(
    recipe: RecipeName = "default",
    work: Work = WORK,
    like: Annotated[
        Path | None, typer.Option(help="Model folder whose tokenizer to take, not a new one.")
    ] = None,
) -> None:
    """Split the pairs, train the tokenizer, write token arrays."""
    workspace = Workspace(work)
    parts = split_corpus(workspace.pairs, named_recipe(recipe))
    if like:
        tokens = prepare_like(parts, workspace.root, like)
    else:
        tokens = prepare(parts, workspace.root, TokenizerSettings())
    for part, examples in parts.items():
        console.print(f"{part}: {len(examples)} English strings, {tokens[part]} target tokens")


@app.command()
def warm_start(work: Work = WORK, model: Model = MODEL) -> None:
    """Take the exported model's weights as the checkpoint that train goes on from."""
    workspace, shipped = Workspace(work), Shipped(model, CURVE)
    shipped.check_tokenizer(workspace.tokenizer)
    tokens = int(workspace.arrays(Part.TRAINING).target_tokens.size)
    progress = shipped.warm_start(workspace.run, tokens, TrainSettings().optimizer)
    console.print(f"{asdict(progress)}")


@app.command()
def train(
    work: Work = WORK,
    minutes: Annotated[float, typer.Option(help="Active minutes, resumed ones included.")] = 90.0,
    threads: Annotated[int, typer.Option(help="Threads that compute gradients.")] = 2,
    probe_minutes: Annotated[float, typer.Option(help="Minutes between two probes.")] = 10.0,
    muon: Annotated[bool, typer.Option(help="Muon for matrices, else AdamW for all.")] = True,
    peak: Annotated[float, typer.Option(help="Learning rates, as shares of the usual ones.")] = 1.0,
    decay: Annotated[float, typer.Option(help="Share of the minutes in which rates fall.")] = 0.35,
    warmup: Annotated[float, typer.Option(help="Share of the minutes in which they rise.")] = 0.01,
) -> None:
    """Train, or go on training, until the minutes are used up; Ctrl-C leaves a checkpoint."""
    settings = TrainSettings(
        minutes=minutes, threads=threads, probe_minutes=probe_minutes, bf16=bf16_pays()
    )
    optimizer = replace(
        settings.optimizer.scaled(peak), muon=muon, decay=decay, warmup=warmup, bf16=bf16_pays()
    )
    settings = replace(settings, optimizer=optimizer)
    run_until_stopped(
        console, minutes, lambda report: make_trainer(Workspace(work), settings, report)
    )


@app.command()
def export(work: Work = WORK, model: Model = MODEL) -> None:
    """Write the newest checkpoint as a model folder."""
    export_model(Workspace(work), model)
    size = sum(file.stat().st_size for file in model.iterdir())
    console.print(f"{model}: {size / 1e6:.1f} MB")


@app.command()
def evaluate(
    work: Work = WORK,
    model: Model = MODEL,
    results: Results = RESULTS,
    quick: Annotated[bool, typer.Option(help="A tenth of the strings.")] = False,
    update: Annotated[bool, typer.Option(help="Write the results, compare nothing.")] = False,
    variant: Annotated[list[str] | None, typer.Option(help="These only: int8-beam5, …")] = None,
) -> None:
    """Measure the model through the services; fail if it is worse than the committed results."""
    workspace = Workspace(work)
    _ensure_test_part(workspace, model)
    examples = sample(read_examples(workspace.part(Part.TEST)), 0.1 if quick else 1.0)
    measured = measure(model, examples, variants_named(variant))
    committed, key = read_results(results), "quick" if quick else "test"
    print("\n".join(lines(measured)))
    if update:
        committed[key] = committed.get(key, {}) | measured
        committed["samples"] = translate_samples(model, read_sentences(SENTENCES))
        _add_run(workspace, model, committed)
        write_results(committed, results)
        return
    worse = [*regressions(measured, committed.get(key, {}))]
    worse += [] if quick else int8_losses(measured)  # a tenth is too few for it
    for line in worse:
        console.print(f"worse: {line}", highlight=False)
    raise typer.Exit(bool(worse))


def _ensure_test_part(workspace: Workspace, model: Path) -> None:
    """Mines the corpus, which is not in the repository, and splits it as the model's was."""
    if not workspace.part(Part.TEST).exists():
        fetch(work=workspace.root)
        mine(work=workspace.root)
        tokenizer(work=workspace.root, like=model)


def _add_run(workspace: Workspace, model: Path, results: dict[str, Any]) -> None:
    """Adds what the workspace's training run has cost, and keeps its curve, if there was one."""
    if workspace.checkpoint.exists():
        results["facts"] = read_facts(workspace, model)
        shutil.copyfile(workspace.run / "curve.csv", CURVE)


@app.command()
def caches(work: Work = WORK, model: Model = MODEL, results: Results = RESULTS) -> None:
    """Measure what keys and values in 16 bits do to translations of the test part."""
    workspace = Workspace(work)
    _ensure_test_part(workspace, model)
    found = compare_caches(model, read_examples(workspace.part(Part.TEST)))
    print("\n".join(cache_lines(found)))
    write_results(read_results(results) | {"caches": found}, results)


@app.command()
def card(model: Model = MODEL, results: Results = RESULTS) -> None:
    """Write the model card from measured results."""
    packages = read_manifest(model / SOURCES_FILE)
    text = model_card(read_results(results), packages, read_curve(CURVE))
    (model / "README.md").write_text(text, encoding="utf-8")


@app.command("all")
def everything(
    recipe: RecipeName = "default", work: Work = WORK, model: Model = MODEL, minutes: float = 90.0
) -> None:
    """Do everything, from the packages to the model card."""
    fetch(recipe, work)
    mine(recipe, work)
    tokenizer(recipe, work)
    train(work, minutes)
    export(work, model)
    evaluate(work, model, update=True)
    card(model)


if __name__ == "__main__":
    app()
