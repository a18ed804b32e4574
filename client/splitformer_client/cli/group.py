"""The group of subcommands: its own and those that other distributions add, all loaded by name.

A distribution adds a command with an entry point in the group `splitformer.commands`, whose value
is a plain function (as typer takes them) or a typer app. Listing the commands imports none of them.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import inspect
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from splitformer.errors import ConfigurationError, SplitformerError

GROUP = "splitformer.commands"

_OWN = {
    name: EntryPoint(name, f"splitformer_client.cli.{name}:{name}", GROUP)
    for name in ("translate", "transcribe", "score", "embed", "info", "models", "health")
}


def fail(message: str, reason: str, code: int = 1) -> NoReturn:
    """Say in one line on stderr what went wrong, and exit."""
    line = " ".join(message.split())
    typer.echo(f"error: {line} ({reason})", err=True)
    raise typer.Exit(code)


class Commands(TyperGroup):
    """Finds commands by name and reports what goes wrong in them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List all names: its own, then the added ones."""
        return [*_OWN, *sorted(self._added)]

    def get_command(self, ctx: Any, cmd_name: str) -> LazyCommand | None:
        """Find a command; it is not imported yet."""
        entry = _OWN.get(cmd_name) or self._added.get(cmd_name)
        return LazyCommand(entry) if entry else None

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for; what a user can do wrong becomes one line."""
        try:
            return super().invoke(ctx)
        except SplitformerError as error:
            fail(error.message, error.reason)
        except ConfigurationError as error:
            fail(str(error), "CONFIGURATION", 2)
        except UnicodeError as error:
            fail(f"the input is not UTF-8: {error}", "BAD_ENCODING")
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(f"{error.filename or 'input/output'}: {error.strerror}", "OS_ERROR")

    @cached_property
    def _added(self) -> dict[str, EntryPoint]:
        """Commands of entry points; a name of our own cannot be taken."""
        return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in _OWN}


class LazyCommand(TyperCommand):
    """Stands for a command until it is called.

    Args:
        entry: Where the command is.
    """

    def __init__(self, entry: EntryPoint) -> None:
        super().__init__(name=entry.name, help=summary(entry))
        self._entry = entry

    def make_context(self, info_name: Any, args: Any, parent: Any = None, **extra: Any) -> Any:
        """Import the command and let it take over."""
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> Any:
        try:
            target = self._entry.load()
        except ModuleNotFoundError as error:
            fail(
                f"{self.name}: {error}; install {self._extra}",
                "MISSING_EXTRA",
            )
        if not isinstance(target, typer.Typer):
            target, function = (
                typer.Typer(add_completion=False, pretty_exceptions_enable=False),
                target,
            )
            target.command(self.name, help=paragraphs(function))(function)
        return typer.main.get_command(target)

    @property
    def _extra(self) -> str:
        """What to install: the command's distribution with the extras that its entry names."""
        name = self._entry.dist.name if self._entry.dist else "splitformer"
        return f"{name}[{','.join(['server', *self._entry.extras])}]"


def paragraphs(function: Any) -> str:
    """A command's docstring, a line per paragraph: how wide lines are is up to the terminal."""
    text = inspect.getdoc(function) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def summary(entry: EntryPoint) -> str:
    """First line of a command's docstring, read from its source so that nothing is imported."""
    with contextlib.suppress(OSError, SyntaxError, ImportError):
        source = _source_of(entry.module)
        for node in ast.parse(source.read_text("utf-8")).body if source else ():
            if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
                return inspect.cleandoc(ast.get_docstring(node) or "").partition("\n")[0]
    return f"From {entry.module}."


def _source_of(module: str) -> Path | None:
    """Find the source file of a module without importing the packages above it."""
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not rest:
        return Path(spec.origin) if spec and spec.origin else None
    bases = [Path(folder, *rest) for folder in spec.submodule_search_locations or ()]
    files = [file for base in bases for file in (base.with_suffix(".py"), base / "__init__.py")]
    return next((file for file in files if file.is_file()), None)
