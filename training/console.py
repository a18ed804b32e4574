"""Shows a training run: a progress bar on a terminal, else one plain line per measurement."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from training.curve import Measurement
from training.train import Report, Trainer


@contextmanager
def make_report(console: Console, seconds: float) -> Iterator[Report]:
    """Gives a function that shows each measurement of a run of that many active seconds."""
    if not console.is_terminal:
        yield lambda row, consumed: print(describe(row, consumed), flush=True)
        return
    columns = BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=seconds)

        def report(row: Measurement, consumed: float) -> None:
            bar.update(task, completed=row.seconds, description=describe(row, consumed))
            if row.validation is not None:
                bar.console.print(describe(row, consumed))

        yield report


def run_until_stopped(console: Console, minutes: float, make: Callable[[Report], Trainer]) -> None:
    """Runs a trainer, shown, until its minutes are used up or a signal asks it to end."""
    stopped: list[int] = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, _: stopped.append(number))
    with make_report(console, minutes * 60) as report:
        trainer = make(report)
        trainer.run(stop=lambda: bool(stopped))
    console.print(f"{asdict(trainer.progress)}")


def describe(row: Measurement, consumed: float) -> str:
    """Puts a measurement into one line."""
    rate = row.tokens / max(row.seconds, 1e-9)
    text = (
        f"{consumed:6.1%}  step {row.step}  {row.seconds:.0f} s  {row.tokens / 1e6:.2f} M tokens  "
        f"{rate:.0f}/s  nll {row.likelihood:.3f}"
    )
    if row.validation is not None:
        text += f"  validation {row.validation:.3f}"
    for language, score in row.scores.items():
        text += f"  {language} {score:.1f}"
    return text
