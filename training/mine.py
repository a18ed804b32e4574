"""Mines extracted packages into clean pairs, one JSON-lines file per source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from training.clean import rejection, segments
from training.gettext_catalog import Message, read_catalog, strip_mnemonics, strip_qualifier
from training.html_pairs import page_pairs, pages, read_blocks
from training.recipe import LANGUAGES, TABLE_FILE, Format, Genre, Source


class RawPair(NamedTuple):
    """A pair as it stands in a document (an HTML page or a package's catalogues)."""

    document: str
    language: str
    english: str
    translation: str


class Pair(NamedTuple):
    """A clean pair; ``uses`` says how often the source holds it in that document."""

    source: str
    document: str
    language: str
    english: str
    translation: str
    uses: int


@dataclass(frozen=True, slots=True)
class MiningReport:
    """How many pairs a source gave, by language, and why others were rejected."""

    source: str
    kept: dict[str, int]
    rejected: dict[str, int]


def mine(
    sources: Iterable[Source], extracted: Path, output: Path, workers: int = 2
) -> list[MiningReport]:
    """Mines all sources in parallel processes; writes ``output/<source>.jsonl``."""
    output.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        jobs = [pool.submit(mine_source, source, extracted, output) for source in sources]
        return [job.result() for job in jobs]


def mine_source(source: Source, extracted: Path, output: Path) -> MiningReport:
    """Mines one source and writes its pairs, one JSON array per line."""
    read = _READERS[source.format]
    counts: Counter[RawPair] = Counter()
    rejected: Counter[str] = Counter()
    for raw in read(source, extracted):
        for pair in _segment_pairs(raw, source):
            reason = rejection(pair.english, pair.translation, pair.language)
            if reason:
                rejected[reason] += 1
            else:
                counts[pair] += 1
    with (output / f"{source.name}.jsonl").open("w", encoding="utf-8") as file:
        for pair, count in counts.items():
            file.write(json.dumps([source.name, *pair, count], ensure_ascii=False) + "\n")
    kept = Counter(pair.language for pair in counts)
    return MiningReport(source.name, dict(kept), dict(rejected))


def read_pairs(folder: Path, sources: Iterable[Source]) -> Iterator[Pair]:
    """Yields the mined pairs of the sources, in the recipe's order."""
    for source in sources:
        with (folder / f"{source.name}.jsonl").open(encoding="utf-8") as file:
            for line in file:
                yield Pair(*json.loads(line))


def _segment_pairs(raw: RawPair, source: Source) -> Iterator[RawPair]:
    prose = source.genre is not Genre.INTERFACE
    for english, translation in segments(
        raw.english, raw.translation, raw.language, sentences=prose
    ):
        yield RawPair(raw.document, raw.language, english, translation)


def gettext_raw_pairs(source: Source, extracted: Path) -> Iterator[RawPair]:
    """Yields the messages of all catalogues of a source; the document is the package."""
    for package in source.packages:
        for language in LANGUAGES:
            pattern = f"**/{language}/LC_MESSAGES/*.mo"
            for catalog in sorted((extracted / package).glob(pattern)):
                for message in read_catalog(catalog):
                    yield RawPair(package, language, *_unmarked(message, source))


def _unmarked(message: Message, source: Source) -> tuple[str, str]:
    bare = strip_qualifier(message, source.name)
    english = strip_mnemonics(bare.source, source.mnemonics)
    return english, strip_mnemonics(bare.translation, source.mnemonics)


def html_raw_pairs(source: Source, extracted: Path) -> Iterator[RawPair]:
    """Yields the aligned blocks of all pages of a source; the document is the page."""
    trees = {
        language: pages(extracted / tree.package / tree.folder, tree.suffix)
        for language, tree in source.trees
    }
    for name, page in trees.pop("en").items():
        english = read_blocks(page, source.skipped)
        for language, tree in trees.items():
            if name in tree:
                translated = read_blocks(tree[name], source.skipped)
                for pair in page_pairs(english, translated, language):
                    yield RawPair(name, language, *pair)


def table_raw_pairs(source: Source, extracted: Path) -> Iterator[RawPair]:
    """Yields the cells of a table's rows beside the English ones; the document is the package."""
    table, (package,) = source.table, source.packages
    assert table is not None
    with (extracted / package / TABLE_FILE).open(encoding="utf-8") as rows:
        for row in rows:
            cells = row.rstrip("\n").split("\t")
            found = {name: cells[i] for name, i in table.columns if cells[i] != table.empty}
            english = found.pop("en", None)
            if english and table.wanted & found.keys():
                for language, translation in found.items():
                    yield RawPair(package, language, english, translation)


_READERS = {
    Format.GETTEXT: gettext_raw_pairs,
    Format.HTML: html_raw_pairs,
    Format.TABLE: table_raw_pairs,
}
