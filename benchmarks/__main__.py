"""`python -m benchmarks SCENARIO [--quick] [--json FILE]`: see `--help`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from benchmarks.report import Report
from splitformer.serving.ending import unwind_on

SCENARIOS = (
    "decode",
    "request",
    "more-shapes",
    "serve",
    "open-loop",
    "split-tax",
    "idle",
    "encode",
    "handoff",
    "wire-types",
    "isolation",
    "invariance",
    "speculative",
    "modes",
    "glossaries",
    "families",
)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
CACHE = Path(__file__).parents[1] / ".cache" / "benchmarks"


def main() -> int:
    """Run the scenarios named; all of them if none is."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS))
    parser.add_argument("--quick", action="store_true", help="the most important sizes only")
    parser.add_argument("--json", type=Path, help="folder for results as JSON")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="only figures whose names begin so, such as families.t5-base.b8; repeatable. The"
        " others stay as they are in --json, if they are of the same machine",
    )
    options = parser.parse_args()
    unwind_on(_ENDING, _ended)
    if unknown := set(options.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    for name in options.scenarios or SCENARIOS:
        report = Report(name, options.quick, tuple(options.only))
        importlib.import_module(f"benchmarks.{name.replace('-', '_')}").run(
            report, CACHE, options.quick
        )
        if options.json:
            report.write(options.json / f"{name}.json")
    return 0


def _ended(number: int) -> SystemExit:
    """What unwinds everything first, so that no service is left behind."""
    for each in _ENDING:
        signal.signal(each, signal.SIG_IGN)  # a second one must not end the clean-up
    return SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
