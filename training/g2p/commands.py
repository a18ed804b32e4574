"""``python -m training g2p fetch|train|export``."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.console import make_report
from training.g2p import dictionary
from training.g2p.run import export as export_model, make_trainer, train_settings

app = typer.Typer(help="The pronunciation model.", no_args_is_help=True)
console = Console()

Work = Annotated[Path, typer.Option("--work", help="Folder of all work data.")]
WORK = Path(".cache/training/g2p")
Model = Annotated[Path, typer.Option("--model", help="Folder of the exported model.")]
MODEL = Path("models/splitformer_models/en-g2p")


@app.command()
def fetch(work: Work = WORK) -> None:
    """Download the dictionary; record its version and checksum."""
    console.print(f"{asdict(dictionary.fetch(work))}")


@app.command()
def train(
    work: Work = WORK,
    minutes: Annotated[float, typer.Option(help="Active minutes, resumed ones included.")] = 40.0,
    threads: Annotated[int, typer.Option(help="Threads that compute gradients.")] = 2,
) -> None:
    """Train, or go on training, until the minutes are used up; Ctrl-C leaves a checkpoint."""
    stopped: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stopped.append(number))
    with make_report(console, minutes * 60) as report:
        trainer = make_trainer(work, train_settings(minutes, threads), report)
        trainer.run(stop=lambda: bool(stopped))
    console.print(f"{asdict(trainer.progress)}")


@app.command()
def export(work: Work = WORK, model: Model = MODEL) -> None:
    """Write the newest checkpoint as a model folder."""
    export_model(work, model)
