"""Write deploy/requirements: every package of an image at one version, with the hash of its wheel.

Usage: `python tools/image_requirements.py [--check]`. pip resolves what pyproject.toml asks for
under constraints.txt, for the Python and the platform of the images, whatever runs this, and
downloads nothing but metadata. `--check` works offline: a requirement that was added or changed
since, or a version that constraints.txt no longer has, is noticed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "deploy/requirements"
PYTHON = "3.11"
"""Version of Python in the images, as in deploy/Dockerfile."""

PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    *(f"manylinux{year}_x86_64" for year in (2014, 2010, 1)),
)
"""Wheels that run in the images: glibc 2.36 is Debian 12's."""

_OURS = "splitformer-models"
_TORCH = "torch=="
_SERVICE = ("server", "otel")


@dataclass(frozen=True)
class Set:
    """What goes into one kind of image.

    Attributes:
        name: Of its file.
        purpose: One line for the file's head.
        extras: Of pyproject.toml, besides the dependencies that everybody needs.
        torch: Local version of torch, for example "+cpu"; empty: the build on the default index.
        only: Requirements in place of pyproject's.
    """

    name: str
    purpose: str
    extras: tuple[str, ...] = ()
    torch: str = ""
    only: tuple[str, ...] = ()

    def wanted(self) -> list[str]:
        """Return the requirements to resolve, sorted."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        asked = list(self.only or project["dependencies"])
        for extra in self.extras:
            asked += project["optional-dependencies"][extra]
        plain = [each for each in asked if each != _OURS]
        return sorted(each + self.torch if each.startswith(_TORCH) else each for each in plain)

    def head(self) -> str:
        """The first lines of its file, which say what it was made from."""
        inputs = [PYTHON, *self.wanted()]
        digest = hashlib.sha256("\n".join(inputs).encode()).hexdigest()
        return (
            f"# {self.purpose}\n"
            "# Written by tools/image_requirements.py; do not edit.\n"
            f"# made-from: sha256:{digest}\n"
        )

    @property
    def file(self) -> Path:
        """Where it lies."""
        return FOLDER / f"{self.name}.txt"

    def resolve(self) -> str:
        """Let pip choose, and return the file's text."""
        pins = sorted(map(_pin, _report(self.wanted(), local_torch=bool(self.torch))))
        return self.head() + "".join(pins)


SETS = (
    Set("client", "The client's image."),
    Set("native", "Images of the services, in which the native library computes.", _SERVICE),
    Set("cpu", "Images of the services, with torch for the CPU.", (*_SERVICE, "torch"), "+cpu"),
    Set("cuda", "Images of the services, with torch for CUDA.", (*_SERVICE, "torch")),
    Set("build", "What builds our own wheels, in the images' first stage.", only=("hatchling",)),
)


def _report(wanted: list[str], local_torch: bool) -> list[dict[str, Any]]:
    """Ask pip what it would install; `local_torch` lets pip's configuration offer wheels for it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed"]
        command += ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp"]
        command += [f"--platform={platform}" for platform in PLATFORMS]
        command += ["--target", folder, "--report", str(report)]
        command += ["-c", str(_constraints(Path(folder))), *wanted]
        environment = os.environ.copy()
        if not local_torch:
            environment["PIP_CONFIG_FILE"] = os.devnull
            environment.pop("PIP_FIND_LINKS", None)
        if subprocess.run(command, env=environment, check=False).returncode:
            sys.exit(f"image_requirements: pip cannot resolve {' '.join(wanted)}")
        found: list[dict[str, Any]] = json.loads(report.read_text())["install"]
        return found


def _constraints(folder: Path) -> Path:
    """Our constraints; torch's pin is part of what is asked for."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    kept = folder / "constraints.txt"
    kept.write_text("\n".join(each for each in lines if not each.startswith(_TORCH)) + "\n")
    return kept


def _pin(item: dict[str, Any]) -> str:
    name = item["metadata"]["name"].lower().replace("_", "-")
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{name}=={item['metadata']['version']} \\\n    --hash=sha256:{digest}\n"


def stale() -> list[str]:
    """Return the names of files that were made from something else than what is there now."""
    return [each.name for each in SETS if not _is_current(each)]


def _is_current(each: Set) -> bool:
    text = each.file.read_text() if each.file.is_file() else ""
    pins = dict(re.findall(r"^([a-z0-9-]+)==([^+\s]+)", text, re.MULTILINE))
    ours = (ROOT / "constraints.txt").read_text()
    agreed = dict(
        re.findall(r"^([a-z0-9-]+)==([^;\s]+)(?:; python_version <.*)?$", ours, re.MULTILINE)
    )
    same = all(agreed.get(name, version) == version for name, version in pins.items())
    return text.startswith(each.head()) and same


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which files are stale")
    if parser.parse_args().check:
        names = stale()
        if names:
            print(f"stale: {', '.join(names)}; run tools/image_requirements.py")
        return 1 if names else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for each in SETS:
        each.file.write_text(each.resolve())
        print(f"{each.file.relative_to(ROOT)}: {each.file.read_text().count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
