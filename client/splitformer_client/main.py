"""The `splitformer` command. Subcommands are loaded by name, so that starting is cheap."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from splitformer import __version__
from splitformer_client.cli.group import Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"splitformer {__version__}")
        raise typer.Exit


@app.callback()
def splitformer(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Translate and transcribe with the Splitformer services, run them, and look after them."""


def main() -> None:
    """Run the command and exit."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log is not for whoever translates
    app(prog_name="splitformer")
