"""What a command tells of a long job: how far it is, and which sources failed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from splitformer.errors import SplitformerError
from splitformer_client.aio import AsyncClient
from splitformer_client.cli.lines import Input

Advance = Callable[[int], object]
"""Says that one more result is written, and how many sources are encoded."""

_OWN_FAULTS = ("EMPTY_SOURCE", "SOURCE_TOO_LONG", "TARGET_TOO_LONG")
"""Reasons that lie in one source; whatever else goes wrong would go wrong with the next one too."""


@contextlib.contextmanager
def progress(source: Input) -> Iterator[Advance]:
    """Show a progress bar on stderr while files are read and somebody is there to see it."""
    console = Console(stderr=True)
    if not (console.is_terminal and source.is_lines) or (not source.files and sys.stdin.isatty()):
        yield lambda encoded: None
        return
    encoded = TextColumn("{task.fields[encoded]} encoded")
    columns = (BarColumn(), MofNCompleteColumn(), encoded, TimeElapsedColumn())
    shared = sys.stdout.isatty()  # only then must the bar make way for the output
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=shared)
    with bar as shown:
        task = shown.add_task("", total=source.total(), encoded=0)
        yield lambda encoded: shown.update(task, advance=1, encoded=encoded)


async def tell_encodes(client: AsyncClient, languages: int) -> bool:
    """Say on stderr if every source is encoded once per language; returns False: it is told."""
    info = await client.encoder_info()
    if not info.language_on_decoder:
        why = f"the language is on the encoder's side of {info.name}"
        typer.echo(f"note: {why}; each source is encoded {languages} times", err=True)
    return False


class Failures:
    """Lines that have failed by their own fault: told as they come, and at the end by status 1."""

    def __init__(self) -> None:
        self._count = 0

    def tell(self, number: int, error: SplitformerError) -> None:
        """Say what is wrong with a line; raises any error that is not the line's own fault."""
        error.message = f"line {number}: {error.message}"
        if error.reason not in _OWN_FAULTS:
            raise error
        self._count += 1
        typer.echo(f"error: {error.message} ({error.reason})", err=True)

    def end(self) -> None:
        """End the command with status 1 if any line has failed."""
        if self._count:
            raise typer.Exit(1)
