"""Pairs the text blocks of HTML pages that exist in several languages with the same structure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

from training.clean import normalize

_BLOCKS = frozenset(
    "p h1 h2 h3 h4 h5 h6 li td th dt dd div pre table tr ul ol dl caption body html head title "
    "section aside header footer nav article blockquote hr tbody thead".split()
)
_VOID = frozenset("br img hr meta link input area base col embed source track wbr".split())
_DEAD = frozenset({"pre", "script", "style", "head"})
_SWITCHES = frozenset("WRITER CALC IMPRESS DRAW BASE MATH CHART WIN UNIX".split())
_ANCHORS = ("par_", "hd_", "tit")
_NUMBERING = re.compile(
    r"^(?:(?:Figure|Table|Example|Chapter|Section|Appendix|図|表|例|第|Abbildung|Tabelle|Beispiel"
    r"|Kapitel|Abschnitt|Anhang|Chapitre|Tableau|Exemple|Annexe|Figura|Tabla|Ejemplo|Capítulo"
    r"|Apéndice|图|章|附录)\s*(?:[A-Z]\.)?\d+(?:\.\d+)*\s*(?:章)?[.:：．]?\s+"
    r"|(?:[A-Z]\.)?\d+(?:\.\d+)*\.\s+|[A-Z]\.\d+(?:\.\d+)*\.?\s+)+"
)


class Block(NamedTuple):
    """A run of text and the signature of the element it stands in."""

    signature: str
    text: str


class _Element(NamedTuple):
    tag: str
    label: str
    dead: bool


class _BlockParser(HTMLParser):
    """Collects text blocks, leaving out code, navigation and application-switched text."""

    def __init__(self, skipped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._skipped = skipped
        self._open: list[_Element] = []
        self._text: list[str] = []
        self._dead = 0
        self._switched = False

    def flush(self) -> None:
        """Ends the current block."""
        text = "".join(self._text).strip()
        if text:
            # A switched block keeps its place, so that alignment holds, but loses its text.
            self.blocks.append(Block(self._signature(), "" if self._switched else text))
        self._text.clear()
        self._switched = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens an element; a block element ends the block before it."""
        if tag in _BLOCKS:
            self.flush()
        if tag in _VOID:
            self._text.append("\n" if tag == "br" else "")
            return
        attributes = dict(attrs)
        identifier = attributes.get("id") or ""
        classes = (attributes.get("class") or "").split()
        dead = tag in _DEAD or not self._skipped.isdisjoint([*classes, identifier])
        self._switched |= not _SWITCHES.isdisjoint(classes)
        label = identifier if identifier.startswith(_ANCHORS) else " ".join(classes)
        self._open.append(_Element(tag, label, dead))
        self._dead += dead

    def handle_endtag(self, tag: str) -> None:
        """Closes the innermost open element of that name and all inside it."""
        if tag in _VOID:
            return
        if tag in _BLOCKS:
            self.flush()
        for index in range(len(self._open) - 1, -1, -1):
            if self._open[index].tag == tag:
                self._dead -= sum(element.dead for element in self._open[index:])
                del self._open[index:]
                return

    def handle_data(self, data: str) -> None:
        """Keeps text outside skipped elements."""
        if not self._dead:
            self._text.append(data)

    def _signature(self) -> str:
        path = [element for element in self._open if element.tag in _BLOCKS]
        tags = "/".join(element.tag for element in path[-4:])
        return f"{tags}#{path[-1].label if path else ''}"


def read_blocks(page: Path, skipped: frozenset[str]) -> list[Block]:
    """Returns the text blocks of a page in document order."""
    parser = _BlockParser(skipped)
    parser.feed(page.read_text(encoding="utf-8", errors="replace"))
    parser.close()
    parser.flush()
    return parser.blocks


def align(english: list[Block], translated: list[Block]) -> list[tuple[Block, Block]]:
    """Pairs blocks by structure: all of them if the pages agree, else the runs that surely do."""
    left, right = ([block.signature for block in page] for page in (english, translated))
    if left == right:
        return list(zip(english, translated, strict=True))
    pairs: list[tuple[Block, Block]] = []
    for run in SequenceMatcher(None, left, right, autojunk=False).get_matching_blocks():
        names = left[run.a : run.a + run.size]
        if run.size >= 3 or any("#par_" in name or "#hd_" in name for name in names):
            ends = run.a + run.size, run.b + run.size
            pairs += zip(english[run.a : ends[0]], translated[run.b : ends[1]], strict=True)
    return pairs


def page_pairs(
    english: list[Block], translated: list[Block], language: str
) -> Iterator[tuple[str, str]]:
    """Yields normalised text pairs of two pages, without figure and section numbers."""
    for source, target in align(english, translated):
        if source.text and target.text:
            yield _without_numbering(normalize(source.text), normalize(target.text, language))


def _without_numbering(english: str, translation: str) -> tuple[str, str]:
    stripped = _NUMBERING.sub("", english), _NUMBERING.sub("", translation)
    both = (stripped[0] != english) == (stripped[1] != translation)
    return stripped if both else (english, translation)


def pages(folder: Path, suffix: str) -> dict[str, Path]:
    """Returns the pages under a folder by their relative name without the suffix."""
    found = sorted(folder.rglob(f"*{suffix}"))
    return {str(page.relative_to(folder)).removesuffix(suffix): page for page in found}
