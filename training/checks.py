"""What users notice before they notice quality: placeholders, numbers, loops, script, length.

Each check says of one translation whether it is right, or None where there is nothing to check.
None of them looks at a reference.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from splitformer_client.loops import loops
from training.recipe import CJK_LANGUAGES

_PLACEHOLDER = re.compile(
    r"%\d+\$[sd]|%\(\w+\)[sd]|%l?[sduf](?![a-z])|%\d\b|%[A-Z]{3,}"
    r"|\$\{\w+\}|\$[a-z][\w.]*|\{\w*\}"
)
_MARKUP = re.compile(r"</?[A-Za-z][^<>]*>|&[a-z]+;")
_NUMBER = re.compile(r"\d+")
_WORD = re.compile(r"\b[a-z]{2,}\b")
_HAN_KANA = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]")
_FEW_WORDS = 3
"""English words below which a text may be a name that stays as it is."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A translation to check.

    Attributes:
        english: its source.
        text: the translation.
        language: its language.
        complete: it ended by itself, not at the limit of tokens.
    """

    english: str
    text: str
    language: str
    complete: bool = True


def placeholders(found: Translated) -> bool | None:
    """The placeholders are those of the source, in any order."""
    return _same(_PLACEHOLDER, found)


def markup(found: Translated) -> bool | None:
    """Tags and entities are those of the source, in any order."""
    return _same(_MARKUP, found)


def _same(pattern: re.Pattern[str], found: Translated) -> bool | None:
    wanted = Counter(pattern.findall(found.english))
    return Counter(pattern.findall(found.text)) == wanted if wanted else None


def numbers(found: Translated) -> bool | None:
    """Every number of the source is there; more may come (the third becomes 3.)."""
    bare = _MARKUP.sub(" ", _PLACEHOLDER.sub(" ", found.english))
    wanted = Counter(_NUMBER.findall(bare))
    return wanted <= Counter(_NUMBER.findall(found.text)) if wanted else None


def no_loop(found: Translated) -> bool | None:
    """Nothing is repeated over and over, unless the source does so, and the text has an end."""
    return found.complete and not loops(found.english, found.text)


def script(found: Translated) -> bool | None:
    """Letters are of the language's script, if the source is more than a name."""
    if len(_WORD.findall(found.english)) < _FEW_WORDS:
        return None
    asian = len(_HAN_KANA.findall(found.text))
    latin = len(_LATIN.findall(_MARKUP.sub("", _PLACEHOLDER.sub("", found.text))))
    if found.language not in CJK_LANGUAGES:
        return latin > 0 and not asian
    right = asian > 0 and 3 * asian >= latin  # a word of Latin letters has more of them
    return right and (found.language == "ja" or not _KANA.search(found.text))


def length(found: Translated) -> bool | None:
    """The text is neither far too short nor far too long for its source."""
    low, high = (0.1, 1.5) if found.language in CJK_LANGUAGES else (0.35, 3.0)
    size = len(found.english)
    return low * size - 10 <= len(found.text) <= high * size + 20 and bool(found.text.strip())


CHECKS: dict[str, Callable[[Translated], bool | None]] = {
    "placeholders": placeholders,
    "markup": markup,
    "numbers": numbers,
    "no_loop": no_loop,
    "script": script,
    "length": length,
}


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a check was passed.

    Attributes:
        checked: translations that had something to check.
        right: of these, those that passed, in per cent.
    """

    checked: int
    right: float


def rates(translated: Iterable[Translated]) -> dict[str, Rate]:
    """Returns the rate of every check that had anything to do."""
    results: dict[str, list[bool]] = {name: [] for name in CHECKS}
    for found in translated:
        for name, check in CHECKS.items():
            outcome = check(found)
            if outcome is not None:
                results[name].append(outcome)
    return {
        name: Rate(len(found), round(100 * sum(found) / len(found), 2))
        for name, found in results.items()
        if found
    }
