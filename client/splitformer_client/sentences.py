"""Cutting a long text into sentences, and putting their translations together again."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PARTS = re.compile(r"(\s*)(.*?)(\s*)", re.DOTALL)

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")

_UNSPACED = frozenset("ja jpn zh zho cmn yue wuu lzh".split())
"""Languages that put no space between sentences, by primary subtag."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and the white space that follows it in its text."""

    text: str
    separator: str = ""


def has_paragraphs(text: str) -> bool:
    """True if a blank line divides the text; it would be lost on tokenizers."""
    return _BLANK_LINE.search(text.strip()) is not None


def split(text: str, language: str = "en") -> list[Sentence]:
    """Cut a text into its sentences.

    Args:
        text: The text; white space around it is left out.
        language: Its language, for abbreviations; an unknown one is read as English.

    Returns:
        Sentences that, each followed by its separator, are the text. The last has no separator.
    """
    from sentencex import segment  # noqa: PLC0415 - only long texts need it

    sentences: list[Sentence] = []
    for segmented in segment(language, text):
        match = _PARTS.fullmatch(segmented)
        assert match is not None
        before, core, after = match.groups()
        _append_space(sentences, before)
        if core:
            sentences.append(Sentence(core))
        _append_space(sentences, after)
    if sentences:
        sentences[-1] = Sentence(sentences[-1].text)
    return sentences


def separator_in(language: str, separator: str) -> str:
    """Translate the white space between two sentences.

    A single space, or none, becomes what the target language wants between sentences; anything
    else, such as a new paragraph, stays as it is.
    """
    if separator not in ("", " "):
        return separator
    primary = re.split("[-_]", language, maxsplit=1)[0].lower()
    return "" if primary in _UNSPACED else " "


def _append_space(sentences: list[Sentence], space: str) -> None:
    """Add white space after the last sentence; before the first there is nothing to add it to."""
    if sentences and space:
        last = sentences[-1]
        sentences[-1] = Sentence(last.text, last.separator + space)
