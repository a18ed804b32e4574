"""Reading our documents: fenced blocks, links and code spans, each with its line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SPAN = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Found:
    """Something in a document.

    Attributes:
        file: The document.
        line: Where its first line stands, from 1.
        kind: Language of a fenced block; empty for anything else.
        text: The block without its fences, the link's target, or the span's text.
    """

    file: Path
    line: int
    kind: str
    text: str

    @property
    def place(self) -> str:
        """Path and line for messages."""
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def documents() -> list[Path]:
    """Return the documents that are held to what they say."""
    names = ("README.md", "CONTRIBUTING.md", "client/README.md", "deploy/README.md")
    return [
        *(file for name in names if (file := ROOT / name).is_file()),
        *sorted((ROOT / "docs").rglob("*.md")),
    ]


def blocks(file: Path, *kinds: str) -> list[Found]:
    """Return the fenced blocks of some languages, in order."""
    text = file.read_text(encoding="utf-8")
    return [
        Found(file, text.count("\n", 0, match.start(2)) + 1, match[1], match[2])
        for match in _FENCE.finditer(text)
        if match[1] in kinds
    ]


def commands(file: Path) -> list[Found]:
    """Return the commands of all shell blocks, one per line; a backslash joins lines.

    In a console block a command follows a dollar sign, and all else is output.
    """
    found = []
    for block in blocks(file, "sh", "bash", "console"):
        joined = block.text.replace("\\\n", "")
        for offset, line in enumerate(joined.splitlines()):
            command = line.removeprefix("$ ").strip()
            is_output = block.kind == "console" and not line.startswith("$ ")
            if command and not command.startswith("#") and not is_output:
                found.append(Found(file, block.line + offset, "", command))
    return found


def links(file: Path) -> list[Found]:
    """Return the targets of all links and images."""
    return _in_prose(file, _LINK)


def spans(file: Path) -> list[Found]:
    """Return all code spans."""
    return _in_prose(file, _SPAN)


def anchors(file: Path) -> set[str]:
    """Return the anchors that GitHub makes of a document's headings."""
    headings = _HEADING.findall(_prose(file))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(file: Path) -> str:
    """The text with its fenced blocks blanked out; lines stay where they are."""
    text = file.read_text(encoding="utf-8")
    return _FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def _in_prose(file: Path, pattern: re.Pattern[str]) -> list[Found]:
    text = _prose(file)
    return [
        Found(file, text.count("\n", 0, match.start()) + 1, "", match[1])
        for match in pattern.finditer(text)
    ]
