"""Adds copies of training examples with other placeholders: the model is to learn to copy them.

The corpus is full of ``%s`` but holds few ``{name}``. Where a placeholder or a product's name
stands equally often in an English string and in a translation, both get the same random one. So
does, in a share of the examples, any name or number that a translation keeps as it is: a sentence
of a story has placeholders then where interface strings never have them, and several.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random

from training.corpus import Example
from training.recipe import Genre
from training.split import fold

_TOKENS = (
    r"%\d+\$[sd]|%\(\w+\)[sd]|%[A-Z]{3,}|%l?[sduf](?![a-z])|%\d\b|\$\{\w+\}|\$[a-z][\w.]*\|?"
    r"|\{\w*\}"
)
_PRODUCTS = r"\b(?:LibreOffice|GIMP|Inkscape|GnuCash|Evolution|digiKam|Debian)\b"
# ASCII alone makes a word, so that a Japanese particle does not hide the end of a name; a German
# or French letter after it makes another word of it.
_COPIED = re.compile(f"{_TOKENS}|{_PRODUCTS}", re.ASCII)
_NAME = r"\b[A-Z][A-Za-z]{2,}\b(?![\u00c0-\u024f])"
_KEPT = re.compile(rf"{_TOKENS}|{_NAME}|\b\d{{2,}}\b", re.ASCII)
_WORD = re.compile(r"\b[a-z]{3,10}\b")
_LONGEST = 20
"""Words of the longest English string that is copied."""
_MOST = 4
"""Different placeholders in one string; more is a format, not a sentence."""
_NAMES = 2
"""Different names and numbers that are replaced in one string."""


def augment(
    examples: Sequence[Example],
    held_out: set[str],
    copies: int = 2,
    seed: int = 1,
    names: float = 0.0,
) -> Iterator[Example]:
    """Yields copies, with new placeholders, of examples that have any to replace.

    Args:
        examples: the training part.
        held_out: keys of the other parts, which no copy may have.
        copies: copies of each example with placeholders or products.
        seed: seeds the choice of placeholders.
        names: share of all examples whose names and numbers are replaced, too.
    """
    random = Random(seed)
    words = sorted({"name"}.union(*(_WORD.findall(e.english) for e in examples)))
    for copy in _copies(examples, words, random, copies, names):
        if copy.translations and fold(copy.english) not in held_out:
            yield copy


def _copies(
    examples: Sequence[Example], words: list[str], random: Random, copies: int, names: float
) -> Iterator[Example]:
    for example in [*examples] * copies:
        found = Counter(_COPIED.findall(example.english))
        if _short(example) and 0 < len(found) <= _MOST:
            yield _replaced(example, _COPIED, found, words, random)
    for example in examples:
        if random.random() < names and _short(example):
            found = _kept(example, random)
            if found:
                yield _replaced(example, _KEPT, found, words, random)


def _short(example: Example) -> bool:
    return example.genre is not Genre.MANUAL and len(example.english.split()) <= _LONGEST


def _kept(example: Example, random: Random) -> Counter[str]:
    """Returns names and numbers that some translation keeps, and all placeholders."""
    english = Counter(_KEPT.findall(example.english))
    names = [token for token in english if token[0] not in "%${"]
    texts = [Counter(_KEPT.findall(text)) for text in example.translations.values()]
    same = [name for name in names if any(text[name] == english[name] for text in texts)]
    chosen = set(random.sample(same, min(len(same), _NAMES)))
    return Counter({t: n for t, n in english.items() if t in chosen or t not in names})


def _replaced(
    example: Example,
    pattern: re.Pattern[str],
    found: Counter[str],
    words: list[str],
    random: Random,
) -> Example:
    fresh = {token: _fresh(token, words, random) for token in found}

    def swap(text: str) -> str:
        return pattern.sub(lambda match: fresh.get(match.group(), match.group()), text)

    translations = {
        language: swap(text)
        for language, text in example.translations.items()
        if Counter(t for t in pattern.findall(text) if t in found) == found
    }
    return Example(swap(example.english), example.source, example.genre, translations)


def _fresh(token: str, words: list[str], random: Random) -> str:
    """Draws what stands in a token's place: for most numbers another number."""
    if token.isdigit() and random.random() < 0.7:
        return str(random.randrange(10 ** (len(token) - 1), 10 ** len(token)))
    return placeholder(words, random)


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
