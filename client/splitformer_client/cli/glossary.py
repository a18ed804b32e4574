"""Glossaries of the command: files of terms, and terms as options."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer

from splitformer_client.options import Glossary


def glossary_of(
    file: Path | None, terms: Sequence[str]
) -> Glossary | Mapping[str, Glossary] | None:
    """Read `--glossary FILE` and `--term SOURCE=TARGET`; None if there is neither.

    A line of the file holds a source term, a tab and a target term; a tab and a language may
    follow, for which alone it is meant. Empty lines count for nothing.

    Raises:
        BadParameter: A line or an option is none of that, or says otherwise than one before it.
        UnicodeDecodeError: The file is not UTF-8.
    """
    entries: dict[str, dict[str, str]] = {}
    for where, source, target, language in (*_lines(file), *_options(terms)):
        known = entries.setdefault(language, {})
        if known.setdefault(source, target) != target:
            rule = f"{where}: {source!r} comes out as {known[source]!r} already"
            raise typer.BadParameter(rule, param_hint="--glossary")
    if set(entries) - {""}:
        return {**entries}
    return entries.get("")


def for_languages(
    glossary: Glossary | Mapping[str, Glossary] | None, languages: Sequence[str]
) -> Glossary | Mapping[str, Glossary] | None:
    """Give each language its terms and those of no language; other languages' are left out."""
    if glossary is None or all(isinstance(each, str) for each in glossary.values()):
        return glossary
    by_language = {key: value for key, value in glossary.items() if not isinstance(value, str)}
    common = by_language.get("", {})
    return {each: {**common, **by_language.get(each, {})} for each in languages}


def _lines(file: Path | None) -> Iterator[tuple[str, str, str, str]]:
    text = file.read_text(encoding="utf-8-sig") if file else ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        if not 2 <= len(fields) <= 3 or not all(field.strip() for field in fields):
            rule = f"{file}, line {number}: must be a source term, a tab and a target term, got"
            raise typer.BadParameter(f"{rule} {line!r}", param_hint="--glossary")
        source, target, language = (field.strip() for field in (*fields, "")[:3])
        yield f"{file}, line {number}", source, target, language


def _options(terms: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    for term in terms:
        source, equals, target = term.partition("=")
        if not (equals and source.strip() and target.strip()):
            raise typer.BadParameter(f"must be SOURCE=TARGET, got {term!r}", param_hint="--term")
        yield "--term", source.strip(), target.strip(), ""
