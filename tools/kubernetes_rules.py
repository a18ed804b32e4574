"""Wrap Prometheus' rules as the Prometheus Operator wants them.

Usage: `python tools/kubernetes_rules.py [--check]`. With `--check` nothing is written; the exit
status is 1 if the file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
FILE = DEPLOY / "kubernetes/components/monitoring/rules.yaml"
HEAD = """\
# What deploy/prometheus/rules holds. Written by tools/kubernetes_rules.py; do not edit.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: splitformer
spec:
  groups:
"""


def groups(text: str) -> str:
    """Return a rule file's groups, indented by two more."""
    lines = text.partition("\ngroups:\n")[2].splitlines()
    return "".join(f"  {line}\n" if line else "\n" for line in lines)


def rules() -> str:
    """Return the whole file."""
    files = sorted((DEPLOY / "prometheus/rules").glob("*.yml"))
    return HEAD + "".join(groups(file.read_text(encoding="utf-8")) for file in files)


def main() -> int:
    """Write the file, or check it."""
    if "--check" not in sys.argv[1:]:
        FILE.write_text(rules(), encoding="utf-8")
    elif not FILE.is_file() or FILE.read_text(encoding="utf-8") != rules():
        print(f"{FILE.name} is stale: run `python tools/kubernetes_rules.py`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
