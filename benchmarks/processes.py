"""What processes have used: CPU time and peaks of memory, as Linux counts them."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, so far.

    Attributes:
        cpu_seconds: All its threads, user and system.
        peak_bytes: Most resident memory it ever had.
        resident_bytes: Resident memory now.
    """

    cpu_seconds: float
    peak_bytes: int
    resident_bytes: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])  # utime and stime
        status = Path(f"/proc/{pid}/status").read_text()
        return cls(ticks / os.sysconf("SC_CLK_TCK"), _kib(status, "VmHWM"), _kib(status, "VmRSS"))


def _kib(status: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
    assert found, f"/proc has no {name}"
    return 1024 * int(found[1])


def usages(pids: Mapping[str, int]) -> dict[str, Usage]:
    """Read several processes, by name."""
    return {name: Usage.of(pid) for name, pid in pids.items()}


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """CPU seconds that each process used between two readings."""
    return {name: after[name].cpu_seconds - before[name].cpu_seconds for name in before}


def others_cpu() -> float:
    """CPU seconds that all other processes have used so far, to some 15 ms; 0 without /proc."""
    if not (stat := Path("/proc/stat")).exists():
        return 0.0
    user, nice, system, _, _, hard, soft = map(int, stat.read_text().split()[1:8])
    ticks = user + nice + system + hard + soft
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
