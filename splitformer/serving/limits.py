"""How much memory this process may take, and whether what it is told to keep fits into it.

A container that takes more than its limit is killed without a word; this says it beforehand.
"""

from __future__ import annotations

import sys
from pathlib import Path

from splitformer.errors import ConfigurationError

_LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux shows a container its limit: control groups of version 2 and 1."""

_UNLIMITED = 1 << 60
PROCESS_BYTES = 128 << 20
"""What a process takes with nothing in it: Python, gRPC, the packed default model (91 MiB at most,
as measured), and room for the messages under way."""

TORCH_BYTES = 256 << 20
"""What torch adds to that where it computes on a CPU (276 MiB of 367, as measured)."""


def memory_limit() -> int | None:
    """Return the container's limit in bytes, None if there is none."""
    for name in _LIMIT_FILES:
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _UNLIMITED:
            return int(text)
    return None


def check_process_fits(name: str) -> None:
    """End with status 2 and one line if not even an empty process fits.

    To be called before what takes memory is loaded, which would be too late.
    """
    try:
        _check(0, 0, PROCESS_BYTES)
    except ConfigurationError as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(2)


def check_budget_fits(memory_bytes: int, model: str, with_torch: bool = False) -> None:
    """ConfigurationError unless process, model and budget fit into the container's limit.

    Args:
        memory_bytes: The budget for memories or sessions.
        model: The model's folder; empty for the embedded one, which is part of the process.
        with_torch: Whether torch is to compute.
    """
    weights = sum(file.stat().st_size for file in Path(model).glob("*.safetensors"))
    _check(memory_bytes, weights, PROCESS_BYTES + TORCH_BYTES * with_torch)


def _check(memory_bytes: int, model_bytes: int, process_bytes: int) -> None:
    limit, needed = memory_limit(), memory_bytes + model_bytes + process_bytes
    if limit is None or needed <= limit:
        return
    parts = {"memory_bytes": memory_bytes, "the model": model_bytes, "the process": process_bytes}
    told = " + ".join(f"{name} ({_mib(size)})" for name, size in parts.items() if size)
    raise ConfigurationError(
        f"memory: must fit into this container's limit of {_mib(limit)}, got {told};"
        f" raise the limit to {_mib(needed)}" + (", or lower memory_bytes" if memory_bytes else "")
    )


def _mib(size: int) -> str:
    return f"{-(-size // 2**20)} MiB"
