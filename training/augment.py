"""Adds copies of training examples with other placeholders: the model is to learn to copy them.

The corpus is full of ``%s`` but holds few ``{name}``. Where a placeholder or a product's name
stands equally often in an English string and in a translation, both get the same random one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

from training.corpus import Example
from training.recipe import Genre
from training.split import fold

_COPIED = re.compile(
    r"%\d+\$[sd]|%\(\w+\)[sd]|%[A-Z]{3,}|%l?[sduf](?![a-z])|%\d\b|\$\{\w+\}|\$[a-z][\w.]*\|?"
    r"|\{\w*\}|\b(?:LibreOffice|GIMP|Inkscape|GnuCash|Evolution|digiKam|Debian)\b"
)
_WORD = re.compile(r"\b[a-z]{3,10}\b")
_LONGEST = 20
"""Words of the longest English string that is copied."""
_MOST = 4
"""Different placeholders in one string; more is a format, not a sentence."""


def augment(
    examples: Sequence[Example], held_out: set[str], copies: int = 2, seed: int = 1
) -> Iterator[Example]:
    """Yields copies, with new placeholders, of every example that has any to replace.

    Args:
        examples: the training part.
        held_out: keys of the other parts, which no copy may have.
        copies: copies of each example.
        seed: seeds the choice of placeholders.
    """
    random = Random(seed)
    words = sorted({"name"}.union(*(_WORD.findall(e.english) for e in examples)))
    for example in [*examples] * copies:
        found = Counter(_COPIED.findall(example.english))
        if _short(example) and 0 < len(found) <= _MOST:
            copy = _replaced(example, found, words, random)
            if copy.translations and fold(copy.english) not in held_out:
                yield copy


def _short(example: Example) -> bool:
    return example.genre is not Genre.MANUAL and len(example.english.split()) <= _LONGEST


def _replaced(example: Example, found: Counter[str], words: list[str], random: Random) -> Example:
    fresh = {token: placeholder(words, random) for token in found}

    def swap(text: str) -> str:
        return _COPIED.sub(lambda match: fresh[match.group()], text)

    translations = {
        language: swap(text)
        for language, text in example.translations.items()
        if Counter(_COPIED.findall(text)) == found
    }
    return Example(swap(example.english), example.source, example.genre, translations)


def placeholder(words: list[str], random: Random) -> str:
    """Draws a placeholder of one of the usual styles, its name from real words."""
    name = random.choice(words)
    if random.random() < 0.25:
        name += "_" + random.choice(words)
    styles = {
        f"{{{name}}}": 8,
        f"{{{random.randrange(10)}}}": 2,
        "{}": 1,
        "%s": 3,
        "%d": 2,
        f"%({name})s": 1,
        f"%{random.randrange(1, 10)}": 2,
        f"${name}": 1,
        f"${{{name}}}": 1,
        f"<{name}>": 1,
    }
    return random.choices(list(styles), list(styles.values()))[0]
