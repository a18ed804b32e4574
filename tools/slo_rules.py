"""Write the recording rules and burn-rate alerts of the service level objectives.

Usage: `python -m tools.slo_rules [--check]`. With `--check` nothing is written; the exit status is
1 if the file differs.

The method is that of Google's SRE workbook, chapter 5: how fast is the error budget of 30 days
being used up, seen over a long window, so that blips do not count, and over a short one, so that
the alert ends soon after the trouble.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from tools.generated import checking, settle

FILE = Path(__file__).resolve().parent.parent / "deploy/prometheus/rules/slo.yml"

HEAD = """\
# Service level objectives: recording rules and burn-rate alerts.
# Written by tools/slo_rules.py; do not edit.

groups:
"""

OURS = 'grpc_code=~"INTERNAL|UNKNOWN|DATA_LOSS|UNAVAILABLE|RESOURCE_EXHAUSTED|DEADLINE_EXCEEDED"'
INTENDED = 'reason!~"DRAINING|NOT_READY|MEMORY_TOO_LARGE|UPLOAD_STALLED"'


@dataclass(frozen=True)
class Objective:
    """What is promised.

    Attributes:
        key: Part of the names of its rules.
        alert: Name of its alerts.
        target: Fraction that must be good.
        promise: The same in words.
        bad: Ratio of what is not, over a window written `WINDOW`.
    """

    key: str
    alert: str
    target: str
    promise: str
    bad: str


@dataclass(frozen=True)
class Burn:
    """One pair of windows and how much faster than allowed the budget may be used up in both."""

    long: str
    short: str
    factor: str
    wait: str
    severity: str


def slow_ratio(histogram: str, seconds: str) -> str:
    """Return the ratio of what took longer than a bucket's bound."""
    return (
        f'1 - sum(rate({histogram}_bucket{{le="{seconds}"}}[WINDOW]))'
        f" / sum(rate({histogram}_count[WINDOW]))"
    )


OBJECTIVES = (
    Objective(
        "availability",
        "SplitformerAvailabilityBurn",
        "0.999",
        "99.9 % of RPCs end without a failure of ours",
        f"sum(rate(splitformer_failures_total{{{OURS},{INTENDED}}}[WINDOW]))"
        " / sum(rate(grpc_server_handled_total[WINDOW]))",
    ),
    Objective(
        "first_token",
        "SplitformerFirstTokenBurn",
        "0.99",
        "99 % of generations have their first token within 1 s",
        slow_ratio("splitformer_decoder_time_to_first_token_seconds", "1.0"),
    ),
    Objective(
        "inter_token",
        "SplitformerInterTokenBurn",
        "0.99",
        "99 % of tokens follow the one before within 0.1 s",
        slow_ratio("splitformer_decoder_inter_token_seconds", "0.1"),
    ),
)
BURNS = (
    Burn("1h", "5m", "14.4", "2m", "page"),
    Burn("6h", "30m", "6", "15m", "page"),
    Burn("1d", "2h", "3", "1h", "ticket"),
    Burn("3d", "6h", "1", "3h", "ticket"),
)
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")


def record_name(objective: Objective, window: str) -> str:
    """Return the name of a recorded ratio."""
    return f"splitformer:{objective.key}:bad_ratio_rate{window}"


def record(objective: Objective, window: str) -> str:
    """Write the rule that records a ratio."""
    return (
        f"      - record: {record_name(objective, window)}\n"
        f"        expr: {objective.bad.replace('WINDOW', window)}\n"
    )


def alert(objective: Objective, burn: Burn) -> str:
    """Write one alert."""
    limit = f"{burn.factor} * (1 - {objective.target})"
    return f"""\
      - alert: {objective.alert}
        expr: |
          {record_name(objective, burn.long)} > {limit}
          and
          {record_name(objective, burn.short)} > {limit}
        for: {burn.wait}
        labels:
          severity: {burn.severity}
          window: {burn.long}
        annotations:
          summary: "{objective.promise}: the error budget burns {burn.factor} times too fast"
          description: "Over {burn.long} the ratio was {{{{ $value | humanizePercentage }}}}."
          runbook: docs/operating.md#{objective.alert.lower()}
"""


def rules() -> str:
    """Return the whole file."""
    parts = [HEAD, "  - name: splitformer-objectives\n    rules:\n"]
    parts += [record(objective, window) for objective in OBJECTIVES for window in WINDOWS]
    parts += ["\n  - name: splitformer-burn-rates\n    rules:\n"]
    parts += [alert(objective, burn) for objective in OBJECTIVES for burn in BURNS]
    return "".join(parts)


def main() -> int:
    """Write the file, or check it."""
    return settle({FILE: rules()}, checking("Write the rules of the objectives."))


if __name__ == "__main__":
    sys.exit(main())
