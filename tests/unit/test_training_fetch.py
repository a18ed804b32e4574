"""Fetching packages: what apt and dpkg are asked, without either."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import fetch
from training.recipe import Genre, Source
from training.runtime import Workspace

SOURCE = Source("gimp", "GPL", Genre.INTERFACE, ("gimp-data",))


def test_the_workspace_may_be_named_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(command: list[str], folder: Path) -> str:
        if command[0] == "apt-get":
            (folder / "gimp-data_1.0_all.deb").write_bytes(b"data")
            return ""
        paths = [Path(word) for word in command if "/" in word]
        assert paths
        assert all((folder / path).exists() for path in paths), command
        return "gimp-data 1.0"

    monkeypatch.setattr(fetch, "_run", run)
    (package,) = fetch.fetch([SOURCE], Workspace(Path("work")))
    assert (package.name, package.version, package.size) == ("gimp-data", "1.0", 4)
    assert (tmp_path / "work/extracted/gimp-data").is_dir()
    assert fetch.read_manifest(tmp_path / "work/sources.json") == [package]
