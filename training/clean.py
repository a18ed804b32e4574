"""Turns raw string pairs into clean segment pairs: whitespace, sentence splitting, filters.

Knows nothing of where the text came from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from training.recipe import CJK_LANGUAGES

MAXIMUM_WORDS = 100
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uff66-\uff9d]")
_KANA = re.compile(r"[\u3040-\u30ff\uff66-\uff9d]")
_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_ANY_WORD = re.compile(r"[^\W\d_]+")
_MARKUP = re.compile(
    r"<[^<>]*>|&\w+;|https?://\S+|%[-+ #0-9.*$]*[a-zA-Z0-9]|%\w+"
    r"|\$\{?[\w.|]+\}?|\{[^{}]*\}|\\[a-z]|--?[a-z][\w-]*"
)
_IDENTIFIER = re.compile(r"[A-Z0-9._-]{4,}")  # a spreadsheet function, a format, a constant
_PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*[-*•])")
_LATIN_END = re.compile(r"(?<=[.!?])[\"”’)]*\s+(?=[\"“‘(]?[A-Z0-9¿¡ÀÉÊÎÖÄÜ«„])")
_CJK_END = re.compile(r"(?<=[。！？!?])(?![」』”）)。！？!?])\s*")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|Mr|Dr|St|cf|No|Fig|z\.B|bzw|p\.ej|[A-Z])\.$")
_QUESTION = re.compile(r"[?？][\"”’)」』）]*$")
_CJK_WRAP = re.compile(r"(?<=[\u3000-\u9fff\uff00-\uffef])\s*\n\s*(?=[\u3000-\u9fff\uff00-\uffef])")


def normalize(text: str, language: str = "en") -> str:
    """Folds whitespace; removes soft hyphens, zero-width spaces and line wraps inside CJK text."""
    text = text.replace("\u00ad", "").replace("\u200b", "")
    if language in CJK_LANGUAGES:
        text = _CJK_WRAP.sub("", text)
    return " ".join(text.split())


def segments(
    english: str, translation: str, language: str, *, sentences: bool
) -> Iterator[tuple[str, str]]:
    """Yields aligned paragraphs, cut into sentences where ``sentences`` and both sides agree."""
    sources, targets = _paragraphs(english), _paragraphs(translation)
    if len(sources) != len(targets):
        sources, targets = [english], [translation]
    for source, target in zip(sources, targets, strict=True):
        pair = normalize(source), normalize(target, language)
        yield from _sentence_pairs(*pair, language) if sentences else [pair]


def _paragraphs(text: str) -> list[str]:
    return [part for part in _PARAGRAPH.split(text) if part.strip()]


def _sentence_pairs(english: str, translation: str, language: str) -> list[tuple[str, str]]:
    whole = [(english, translation)]
    if len(english.split()) <= 12:
        return whole
    sources, targets = split_sentences(english, "en"), split_sentences(translation, language)
    if len(sources) != len(targets):
        return whole
    pairs = list(zip(sources, targets, strict=True))
    ratio = len(translation) / len(english)
    return pairs if all(_plausible(*pair, ratio) for pair in pairs) else whole


def _plausible(source: str, target: str, ratio: float) -> bool:
    """Lengths agree with the paragraph's own ratio, and both or neither are questions."""
    expected, actual = (len(source) + 12) * ratio, len(target) + 12 * ratio
    same_mood = bool(_QUESTION.search(source)) == bool(_QUESTION.search(target))
    return 0.6 * expected <= actual <= 1.6 * expected and same_mood


def split_sentences(text: str, language: str) -> list[str]:
    """Cuts a paragraph into sentences; joins again after known abbreviations."""
    ends = _CJK_END if language in CJK_LANGUAGES else _LATIN_END
    cuts = [match.end() for match in ends.finditer(text)]
    spans = pairwise([0, *cuts, len(text)])
    parts = [text[start:end].strip() for start, end in spans]
    joined: list[str] = []
    for part in filter(None, parts):
        if joined and _ABBREVIATION.search(joined[-1]):
            joined[-1] += " " + part
        else:
            joined.append(part)
    return joined


def without_markup(text: str) -> str:
    """Replaces tags, entities, addresses, placeholders and options by spaces."""
    return _MARKUP.sub(" ", text)


def rejection(english: str, translation: str, language: str) -> str | None:
    """Says why a pair is unusable, or None if it is fine."""
    words = _WORD.findall(without_markup(english))
    if not any(len(word) > 1 for word in words):
        return "no words"
    if english.lower() == translation.lower():
        return "identical"
    if _IDENTIFIER.fullmatch(english):
        return "identifier"
    if len(english.split()) > MAXIMUM_WORDS:
        return "too long"
    if not _ANY_WORD.search(without_markup(translation)):
        return "no words in the translation"
    if _untranslated(words, translation, language):
        return "untranslated"
    return None if _plausible_ratio(english, translation, language) else "length ratio"


def _untranslated(words: list[str], translation: str, language: str) -> bool:
    if language not in CJK_LANGUAGES:
        return _mostly_copied(words, translation)
    native = len(_CJK.findall(translation))
    latin = len(re.findall(r"[A-Za-z]", without_markup(translation)))
    if native == 0 or (len(words) >= 6 and native < 0.25 * latin):
        return True
    return language == "ja" and len(words) >= 6 and not _KANA.search(translation)


def _mostly_copied(words: list[str], translation: str) -> bool:
    if len(words) < 5:
        return False
    source = {word.lower() for word in words}
    target = {word.lower() for word in _ANY_WORD.findall(without_markup(translation))}
    return len(source & target) >= 0.6 * len(source)


def _plausible_ratio(english: str, translation: str, language: str) -> bool:
    if len(english) < 20:
        return True
    low, high = (0.1, 2.0) if language in CJK_LANGUAGES else (0.4, 3.0)
    return low <= len(translation) / len(english) <= high
