"""Write the tables in docs/ that repeat what the code says: settings, metrics, RPCs, error reasons.

Usage: `python -m tools.reference_tables [--check]`. With `--check` nothing is written; the exit
status is 1, and the files are named, if a table differs from the code or a reason has no meaning.

A table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`. All of it is generated but one
column: the meaning of an error reason is written by hand, in the table itself, and kept.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from decoder_service.metrics import DecoderMetrics
from decoder_service.settings import DecoderSettings
from encoder_service.metrics import EncoderMetrics
from encoder_service.settings import EncoderSettings
from splitformer import errors
from splitformer.serving.arithmetic import ModelSettings
from splitformer.serving.counters import QuickCounter
from splitformer.serving.histograms import StepHistogram
from splitformer.serving.settings import Settings
from splitformer.serving.telemetry import Telemetry
from tools.generated import checking, settle

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SOURCES = ("splitformer", "encoder_service", "decoder_service", "client/splitformer_client")
REASONS_FILE = ROOT / "splitformer/serving/reasons.py"
REASONS_HEAD = '''"""Why RPCs of the services may fail, for series that exist from the start.

Written by tools/reference_tables.py; do not edit.
"""

REASONS = (
'''
MOST_VALUES_SHOWN = 8
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))

Rows = Iterable[Sequence[str]]


def table(head: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- settings -------------------------------------------------------------------------------------


def settings_table(cls: type[Settings], names: Iterable[str], prefix: str) -> str:
    """Return the settings of those names as flags and environment variables."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    return table(
        ("flag", "environment variable", "default", "meaning"),
        (
            (
                f"`--{name.replace('_', '-')}`",
                f"`{prefix}{name.upper()}`",
                default_of(fields[name]),
                fields[name].metadata["explanation"],
            )
            for name in names
        ),
    )


def default_of(field: dataclasses.Field[Any]) -> str:
    """Write a default as a user would give it."""
    value: Any = field.default
    if field.metadata["size"]:
        for unit, name in UNITS:
            if value % unit == 0:
                return f"`{value // unit}{name}`"
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`" if value != "" else "(empty)"


def own_settings(cls: type[Settings]) -> list[str]:
    """Return the names of settings that a service adds or changes."""
    return [name for name in cls.__annotations__ if name != "prefix"]


def shared_settings() -> list[str]:
    """Return the names of settings that both services take over unchanged."""
    changed = {*own_settings(EncoderSettings), *own_settings(DecoderSettings)}
    return [field.name for field in dataclasses.fields(ModelSettings) if field.name not in changed]


# --- metrics --------------------------------------------------------------------------------------


Metric = MetricWrapperBase | QuickCounter | StepHistogram


def metrics_table(holder: object) -> str:
    """Return the metrics that are attributes of an object, in their order there."""
    metrics = [m for m in vars(holder).values() if isinstance(m, Metric)]
    return table(("metric", "type", "labels", "meaning"), map(metric_row, metrics))


def metric_row(metric: Metric) -> tuple[str, str, str, str]:
    """Describe one metric; the values of a label are given if they are known from the start."""
    family = next(iter(metric.describe()))
    suffix = "_total" if family.type == "counter" else ""
    samples = [sample for found in metric.collect() for sample in found.samples]
    labels = []
    for name in getattr(metric, "_labelnames", ()):  # prometheus_client has no public name for it
        values = dict.fromkeys(s.labels[name] for s in samples if name in s.labels)
        few = 0 < len(values) <= MOST_VALUES_SHOWN
        labels.append(f"`{name}`" + (f" ({', '.join(values)})" if few else ""))
    return f"`{family.name}{suffix}`", family.type, ", ".join(labels), family.documentation


# --- RPCs -----------------------------------------------------------------------------------------


def rpcs(proto: str) -> list[tuple[str, str, str, str]]:
    """Return comment and name of every RPC in a file, and "stream " or nothing for both ways."""
    text = (ROOT / "protos/splitformer/v1" / proto).read_text(encoding="utf-8")
    return re.findall(r"  // ([^\n]+)\n  rpc (\w+)\((stream )?\w+\) returns \((stream )?", text)


def rpc_table(proto: str) -> str:
    """Return the RPCs of a service and what they do."""
    kinds = {
        (False, False): "unary",
        (True, False): "client stream",
        (False, True): "server stream",
        (True, True): "bidirectional",
    }
    rows = (
        (f"`{name}`", kinds[bool(up), bool(down)], comment)
        for comment, name, up, down in rpcs(proto)
    )
    return table(("RPC", "kind", "what it does"), rows)


# --- error reasons --------------------------------------------------------------------------------


@dataclasses.dataclass
class Reason:
    """Where a reason comes from, and whether it can come with a hint when to try again."""

    files: dict[str, None] = dataclasses.field(default_factory=dict)
    retry: bool = False


def reasons() -> dict[tuple[str, str], Reason]:
    """Map (reason, status) to what the code says about it."""
    found: dict[tuple[str, str], Reason] = {}
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" in file.name:
                continue
            for key, retry in raised_in(ast.parse(file.read_text(encoding="utf-8"))):
                reason = found.setdefault(key, Reason())
                reason.files[file.relative_to(ROOT).as_posix()] = None
                reason.retry |= retry
    for error in errors.ERRORS_BY_CODE.values():  # what a client makes of a status without details
        found.setdefault((error.default_reason, error.code.name), Reason())
    return dict(sorted(found.items()))


def raised_in(tree: ast.AST) -> Iterator[tuple[tuple[str, str], bool]]:
    """Yield (reason, status) of every error that a module makes, and if it has a retry hint."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        error = error_class(node.func)
        if error is None:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        retry = "retry_after" in given
        if "reason" not in given:
            yield (error.default_reason, error.code.name), retry
            continue
        for constant in ast.walk(given["reason"]):
            if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                yield (constant.value, error.code.name), retry


def error_class(function: ast.expr) -> type[errors.SplitformerError] | None:
    """Return the error that `NotFoundError(...)` or `InvalidArgumentError.of(...)` makes."""
    if isinstance(function, ast.Attribute):
        name = function.attr
        if name in ("of", "of_all") and isinstance(function.value, ast.Name):
            name = function.value.id
    else:
        name = function.id if isinstance(function, ast.Name) else ""
    found = getattr(errors, name, None)
    is_error = isinstance(found, type) and issubclass(found, errors.SplitformerError)
    return found if is_error and found is not errors.SplitformerError else None


def reasons_table(previous: str) -> str:
    """Return all reasons; their meanings are taken over from the table as it stands."""
    cells = [line.strip("| ").split(" | ") for line in previous.splitlines()]
    meanings = {row[0]: row[3] for row in cells if len(row) > 3}
    rows = (
        (
            f"`{reason}`",
            status,
            "yes" if found.retry else "",
            meanings.get(f"`{reason}`", "?"),
            ", ".join(f"`{file}`" for file in found.files) or "a status without details",
        )
        for (reason, status), found in reasons().items()
    )
    return table(("reason", "status", "retry hint", "meaning", "raised in"), rows)


def reasons_module() -> str:
    """Return the module that lists (status, reason) of all errors but those of the client."""
    raised = {
        (status, reason)
        for (reason, status), found in reasons().items()
        if any(not file.startswith("client/") for file in found.files)
    }
    defaults = {(e.code.name, e.default_reason) for e in errors.ERRORS_BY_CODE.values()}
    pairs = sorted(raised | defaults)
    return REASONS_HEAD + "".join(f'    ("{s}", "{r}"),\n' for s, r in pairs) + ")\n"


# --- files ----------------------------------------------------------------------------------------


def tables() -> dict[str, Callable[[str], str]]:
    """Map the names of the tables to what writes them, given the table as it stands."""
    encoder, decoder = EncoderSettings, DecoderSettings
    return {
        "shared settings": lambda _: settings_table(
            ModelSettings, shared_settings(), "SPLITFORMER_…_"
        ),
        "encoder settings": lambda _: settings_table(
            encoder, own_settings(encoder), encoder.prefix
        ),
        "decoder settings": lambda _: settings_table(
            decoder, own_settings(decoder), decoder.prefix
        ),
        "shared metrics": lambda _: metrics_table(Telemetry()),
        "encoder metrics": lambda _: metrics_table(EncoderMetrics(CollectorRegistry())),
        "decoder metrics": lambda _: metrics_table(DecoderMetrics(CollectorRegistry())),
        "encoder rpcs": lambda _: rpc_table("encoder_service.proto"),
        "decoder rpcs": lambda _: rpc_table("decoder_service.proto"),
        "error reasons": reasons_table,
    }


def renewed(text: str, missing: set[str]) -> str:
    """Return a document with its tables as they should be; takes their names out of `missing`."""
    for name, write in tables().items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if begin in text:
            missing.discard(name)
            before, _, rest = text.partition(begin)
            old, _, after = rest.partition(end)
            text = f"{before}{begin}\n\n{write(old)}\n\n{end}{after}"
    return text


def main() -> int:
    """Write the tables and the module, or check them."""
    check = checking("Write the tables in docs/.")
    missing = set(tables())
    files = {file: renewed(file.read_text(encoding="utf-8"), missing) for file in DOCS.glob("*.md")}
    unclear = [file.name for file, text in sorted(files.items()) if "| ? |" in text]
    complaints = [f"{name}: a reason has no meaning yet; replace the ? by one" for name in unclear]
    complaints += [f"no document has the table of {name}" for name in sorted(missing)]
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return max(settle(files | {REASONS_FILE: reasons_module()}, check), bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
