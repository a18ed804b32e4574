"""Create the virtual environment that every `make` target runs in.

Usage: `python tools/bootstrap.py LEVEL`, LEVEL being one of `LEVELS`. Needs nothing but Python's
standard library, and does nothing, in a few milliseconds, when the environment is already as asked.

Environment variables:
    VENV: Folder of the virtual environment; `.venv` by default.
    TORCH_INDEX: Package index to take torch from, for example one with CUDA builds. Unset, a new
        environment gets the CPU build and an existing one keeps what it has.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "models/pyproject.toml", "constraints.txt", "tools/bootstrap.py")
LEVELS = ("server", "train", "test", "dev")
"""Extras of pyproject.toml from small to large; each level includes those before it.

`server` gets torch only where the native library cannot compute, or if an index is named for it.
"""

TORCH = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Stamp:
    """What an environment was built from and how far, kept in a file inside it.

    Attributes:
        digest: Hash over `INPUTS` and the environment's Python.
        level: The highest of `LEVELS` installed.
        torch_index: The index torch was taken from; empty for the CPU build.
    """

    digest: str
    level: str
    torch_index: str

    @classmethod
    def read(cls, path: Path) -> Stamp | None:
        """Return the stamp, or None if there is none or another version of this file wrote it."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, TypeError, json.JSONDecodeError):
            return None

    def satisfies(self, wanted: Stamp) -> bool:
        """Tell whether an environment with this stamp can serve as `wanted`."""
        same = (self.digest, self.torch_index) == (wanted.digest, wanted.torch_index)
        return same and LEVELS.index(self.level) >= LEVELS.index(wanted.level)


@dataclass(frozen=True)
class Environment:
    """A virtual environment and the steps that fill it."""

    folder: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.folder / "bin" / "python"

    @property
    def stamp_file(self) -> Path:
        """Where the stamp lies; absent while an installation is under way."""
        return self.folder / "splitformer-stamp.json"

    def digest(self) -> str:
        """Hash everything a finished environment depends on."""
        files = [ROOT / name for name in INPUTS] + [self.folder / "pyvenv.cfg"]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()

    def ensure(self, level: str, torch_index: str | None) -> None:
        """Bring the environment to `level`, doing nothing if it is there."""
        if not self.python.exists():
            self.create()
        installed = Stamp.read(self.stamp_file)
        if torch_index is None:
            torch_index = installed.torch_index if installed else ""
        wanted = Stamp(self.digest(), level, torch_index)
        if installed and installed.satisfies(wanted):
            return
        self.stamp_file.unlink(missing_ok=True)
        if installed and installed.torch_index != torch_index:
            self.pip("uninstall", "--yes", "torch")
        with_torch = level != "server" or bool(torch_index)
        if with_torch:
            self.install_torch(torch_index)
        self.install_project(level)
        if not (with_torch or self.computes_natively()):
            self.install_torch(torch_index)
        self.stamp_file.write_text(json.dumps(asdict(wanted)) + "\n")

    def create(self) -> None:
        """Make an empty virtual environment with the running Python."""
        say(f"creating {self.folder} with Python {sys.version.split()[0]}")
        made = subprocess.run([sys.executable, "-m", "venv", self.folder], check=False)
        if made.returncode:
            sys.exit(f"bootstrap: cannot create {self.folder}; is Python's venv module installed?")

    def install_torch(self, index: str) -> None:
        """Install torch from `index`, or the CPU build, and never a CUDA build unasked.

        A CPU wheel that pip's own configuration offers is taken first; such a wheel carries the
        local version `+cpu`, which the default index never has, so looking for it costs little.
        """
        if index:
            say(f"installing {TORCH} from {index}")
            self.pip("install", TORCH, "--index-url", index)
            return
        say(f"installing {TORCH}, CPU build (about 200 MB)")
        if self.pip("install", "-c", "constraints.txt", f"{TORCH}+cpu", optional=True):
            return
        self.pip("install", TORCH, "--index-url", CPU_INDEX)

    def install_project(self, level: str) -> None:
        """Install the repository's two distributions, editable, with the extras up to `level`."""
        extras = ",".join(LEVELS[: LEVELS.index(level) + 1])
        say(f"installing splitformer[{extras}]")
        self.pip("install", "-c", "constraints.txt", "-e", "models", "-e", f".[{extras}]")

    def computes_natively(self) -> bool:
        """Build the native library; False if this machine cannot build or run it."""
        say("building the native library")
        command = [str(self.python), "-m", "splitformer.native"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0

    def pip(self, *arguments: str, optional: bool = False) -> bool:
        """Run pip in the environment; unless `optional`, a failure ends the program."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "-qq", *arguments]
        errors = subprocess.DEVNULL if optional else None
        succeeded = subprocess.run(command, cwd=ROOT, stderr=errors, check=False).returncode == 0
        if not (succeeded or optional):
            sys.exit(f"bootstrap: pip {' '.join(arguments)} failed")
        return succeeded


def say(message: str) -> None:
    """Tell what is going on, since a first run takes minutes."""
    print(f"bootstrap: {message}", flush=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep two runs of `make` from filling one environment at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "splitformer-bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Read the command line and bring the environment to the level asked for."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older Python is told so
        sys.exit(f"bootstrap: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    parser = argparse.ArgumentParser(description="Create or complete the virtual environment.")
    parser.add_argument("level", choices=LEVELS)
    level: str = parser.parse_args().level
    folder = ROOT / os.environ.get("VENV", ".venv")
    with locked(folder):
        Environment(folder).ensure(level, os.environ.get("TORCH_INDEX") or None)


if __name__ == "__main__":
    main()
