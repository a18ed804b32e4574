"""Results as lines and JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import Sample


@dataclass(slots=True)
class Report:
    """Figures by name, printed as they come and kept as JSON.

    Attributes:
        scenario: What is measured.
        quick: With the most important sizes only, and few rounds.
        only: Beginnings of the figures that are wanted; empty: all are.
        figures: Values by name.
        details: The timings that figures were made of.
    """

    scenario: str
    quick: bool = False
    only: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def wants(self, part: str) -> bool:
        """True if any of the figures whose names begin so is wanted."""
        return not self.only or any(part.startswith(o) or o.startswith(part) for o in self.only)

    def figure(self, name: str, value: float) -> None:
        """Add and print a figure."""
        self.figures[name] = value
        plain = f"{value:.0f}" if float(value).is_integer() else f"{value:.4f}"
        print(f"{name} {plain}", flush=True)

    def detail(self, name: str, samples: Mapping[str, Sample]) -> None:
        """Keep the timings that a figure was made of."""
        self.details[name] = {
            key: {
                "median_s": s.median,
                "spread": s.spread,
                "rounds_s": [round(seconds, 6) for seconds in s.seconds],
            }
            for key, s in samples.items()
        }

    def write(self, path: Path) -> None:
        """Write everything with facts about the machine.

        If only a part was wanted, what the file holds of the same machine stays beside it.
        """
        facts = machine()
        others = json.loads(path.read_text()) if self.only and path.exists() else {}
        same = others.get("machine") == facts
        figures = {**(others["figures"] if same else {}), **self.figures}
        details = {**(others["details"] if same else {}), **self.details}
        content = {
            "scenario": self.scenario,
            "quick": self.quick,
            "machine": facts,
            "figures": figures,
            "details": details,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Return what a reader needs to place the figures."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = {line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line}
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    interesting = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
    return {
        "cpu": sorted(models),
        "cores": os.cpu_count(),
        "features": [flag for flag in interesting if flag in flags],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
