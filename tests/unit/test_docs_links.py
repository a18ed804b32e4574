"""What the documents point to is there: files, anchors, names in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, Found, anchors, documents, links, spans

_PATH = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)*/?)(?::(?P<name>[A-Za-z_][\w.]*))?")
DOCUMENTS = [pytest.param(file, id=str(file.relative_to(ROOT))) for file in documents()]


@pytest.mark.parametrize("file", DOCUMENTS)
def test_links_lead_somewhere(file: Path) -> None:
    broken = [found.place + " " + found.text for found in links(file) if not leads(found)]
    assert not broken


def leads(link: Found) -> bool:
    if re.match(r"https?:", link.text):
        return True
    path, _, anchor = link.text.partition("#")
    target = link.file.parent / path if path else link.file
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target)


@pytest.mark.parametrize("file", DOCUMENTS)
def test_paths_and_names_in_code_spans_exist(file: Path) -> None:
    missing = []
    for found in spans(file):
        match = _PATH.fullmatch(found.text)
        if match is None or not is_ours(match["path"]):
            continue
        places = [base / match["path"] for base in (ROOT, file.parent)]
        place = next((place for place in places if place.exists()), None)
        if place is None or (match["name"] and match["name"] not in names_in(place)):
            missing.append(f"{found.place} {found.text}")
    assert not missing


def is_ours(path: str) -> bool:
    """True for paths below a folder of the repository, and for files with a known ending."""
    first, slash, _ = path.partition("/")
    if slash:
        return not first.startswith(".venv") and (ROOT / first).is_dir()
    return False


@cache
def names_in(file: Path) -> frozenset[str]:
    return frozenset(_names(ast.parse(file.read_text(encoding="utf-8")), ""))


def _names(node: ast.AST, prefix: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + child.name
            yield from _names(child, f"{prefix}{child.name}.")


def test_every_document_in_docs_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        file = waiting.pop()
        if file in reached:
            continue
        reached.add(file)
        for link in links(file):
            target = (file.parent / link.text.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.is_file():
                waiting.append(target)
    assert {file for file in documents() if file.is_relative_to(ROOT / "docs")} <= reached


def test_a_broken_link_a_wrong_anchor_and_a_wrong_name_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Life of a session\n[a](#life-of-a-session) [b](#life) [c](nowhere.md)\n")
    assert [leads(found) for found in links(file)] == [True, False, False]
    assert "Found.place" in names_in(ROOT / "tests/support/markdown.py")
    assert "Found.nothing" not in names_in(ROOT / "tests/support/markdown.py")
