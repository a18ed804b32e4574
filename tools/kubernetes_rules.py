"""Wrap Prometheus' rules as the Prometheus Operator wants them.

Usage: `python -m tools.kubernetes_rules [--check]`. With `--check` nothing is written; the exit
status is 1 if the file differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.generated import checking, settle

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
    return settle({FILE: rules()}, checking("Write the rules for Kubernetes."))


if __name__ == "__main__":
    sys.exit(main())
