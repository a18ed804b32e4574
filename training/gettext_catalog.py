r"""Reads translated messages from gettext ``.mo`` files.

Format: https://www.gnu.org/software/gettext/manual/html_node/MO-Files.html. Handles contexts
(``\x04``), plural forms (``\0``), keyboard mnemonics and the ad-hoc qualifiers of some projects.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = 0x950412DE
_HEADER = 28
_CREDITS = frozenset({"translator-credits", "translator_credits", "Your names", "Your emails"})
_CREDIT_CONTEXTS = frozenset({"NAME OF TRANSLATORS", "EMAIL OF TRANSLATORS"})


@dataclass(frozen=True, slots=True)
class Message:
    """One English string and its translation, as the catalogue holds them."""

    source: str
    translation: str
    context: str | None = None


def read_catalog(path: Path) -> Iterator[Message]:
    """Yields the messages of a ``.mo`` file, plurals taken apart, translators' credits left out.

    Raises:
        ValueError: the file is not a ``.mo`` file.
    """
    for key, value in _raw_entries(path.read_bytes(), path):
        context, _, identifier = key.rpartition("\x04")
        if not identifier or identifier in _CREDITS or context in _CREDIT_CONTEXTS:
            continue
        for source, translation in _plural_pairs(identifier.split("\0"), value.split("\0")):
            if translation:
                yield Message(source, translation, context or None)


def _raw_entries(data: bytes, path: Path) -> Iterator[tuple[str, str]]:
    order = _byte_order(data, path)
    count, originals, translations = struct.unpack_from(order + "3I", data, 8)
    for index in range(count):
        try:
            key = _string(data, order, originals + 8 * index).decode("utf-8")
            value = _string(data, order, translations + 8 * index).decode("utf-8")
        except UnicodeDecodeError:
            continue  # a legacy charset: rare, and not worth guessing
        yield key, value


def _byte_order(data: bytes, path: Path) -> str:
    for order in "<>":
        if len(data) >= _HEADER and struct.unpack_from(order + "I", data)[0] == _MAGIC:
            return order
    raise ValueError(f"path: {path} must be a gettext .mo file")


def _string(data: bytes, order: str, descriptor: int) -> bytes:
    length, offset = struct.unpack_from(order + "2I", data, descriptor)
    return data[offset : offset + length]


def _plural_pairs(sources: list[str], translations: list[str]) -> list[tuple[str, str]]:
    """Pairs singular with the first form and plural with the second (or with the only one)."""
    if len(sources) == 1:
        return [(sources[0], translations[0])]
    singular, plural = sources[:2]
    if len(translations) == 1:
        return [(plural, translations[0])]
    return [(singular, translations[0]), (plural, translations[1])]


def strip_mnemonics(text: str, markers: str) -> str:
    """Removes keyboard accelerators: ``_Open``, ``&Open``, ``~Open`` and ``開く(_O)``."""
    for marker in markers:
        escaped = re.escape(marker)
        text = re.sub(rf"\s?[(（]{escaped}[0-9A-Za-z][)）]", "", text)
        text = _INLINE_MNEMONIC[marker].sub(r"\1", text)
    return text


_INLINE_MNEMONIC = {
    "&": re.compile(r"()&(?=\w)(?!\w+;)"),  # not the entities &lt; and the like
    # Never in words with several underscores: those are identifiers.
    "_": re.compile(r"(?<!\w)(?:([^\W\d_]+)_(?=[a-z])|_(?=[^\W_]))(?!\w*_)"),
    "~": re.compile(r"()~(?=\w)"),
}


def strip_qualifier(message: Message, source_name: str) -> Message:
    """Removes the disambiguating prefix some projects write into the English string itself.

    Wesnoth writes ``female^Elf``, freeciv ``?unit:Horse``, inkscape and gnucash ``verb|Open``.
    """
    english, translation = message.source, message.translation
    if source_name.startswith("wesnoth"):
        english = re.sub(r"^[^\^\n]{0,60}\^", "", english)
        translation = re.sub(r"^[a-z _-]{1,40}\^", "", translation)
    elif source_name == "freeciv":
        english, translation = (re.sub(r"^\?[^:\n]*:", "", t) for t in (english, translation))
    elif source_name in {"inkscape", "gnucash"} and _has_pipe_qualifier(english):
        english = re.sub(r"^[\w-]+\|(?=[^\s|])", "", english)
    return Message(english, translation, message.context)


def _has_pipe_qualifier(english: str) -> bool:
    return english.count("|") == 1 and " | " not in english and len(english) < 80
