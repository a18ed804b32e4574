"""Reading .mo files that the tests write themselves."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from training.gettext_catalog import Message, read_catalog, strip_mnemonics, strip_qualifier


def write_mo(path: Path, messages: dict[str, str], order: str = "<") -> Path:
    """Write a .mo file as GNU msgfmt lays it out."""
    keys = sorted(messages)
    strings = [key.encode() for key in keys] + [messages[key].encode() for key in keys]
    tables = 28 + 16 * len(keys)
    descriptors, body = b"", b""
    for data in strings:
        descriptors += struct.pack(order + "2I", len(data), tables + len(body))
        body += data + b"\0"
    header = struct.pack(order + "7I", 0x950412DE, 0, len(keys), 28, 28 + 8 * len(keys), 0, tables)
    path.write_bytes(header + descriptors + body)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
def test_contexts_and_header(tmp_path: Path, order: str) -> None:
    messages = {"": "Content-Type: text/plain", "menu\x04Open": "Öffnen", "Open": "Offen"}
    found = list(read_catalog(write_mo(tmp_path / "a.mo", messages, order)))
    assert found == [Message("Open", "Offen"), Message("Open", "Öffnen", "menu")]


def test_plurals_pair_singular_and_plural(tmp_path: Path) -> None:
    path = write_mo(tmp_path / "a.mo", {"%d file\0%d files": "%d Datei\0%d Dateien"})
    assert list(read_catalog(path)) == [
        Message("%d file", "%d Datei"),
        Message("%d files", "%d Dateien"),
    ]


def test_one_plural_form_goes_with_the_plural(tmp_path: Path) -> None:
    path = write_mo(tmp_path / "a.mo", {"%d file\0%d files": "%d 個のファイル"})
    assert list(read_catalog(path)) == [Message("%d files", "%d 個のファイル")]


def test_credits_and_untranslated_messages_are_left_out(tmp_path: Path) -> None:
    messages = {
        "translator-credits": "Someone",
        "NAME OF TRANSLATORS\x04Your names": "Someone",
        "Close": "",
    }
    assert list(read_catalog(write_mo(tmp_path / "a.mo", messages))) == []


@pytest.mark.parametrize("data", [b"", b"not a catalogue, but long enough to be one"])
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mo"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"must be a gettext \.mo file"):
        list(read_catalog(path))


@pytest.mark.parametrize(
    ("text", "markers", "expected"),
    [
        ("_Open", "_", "Open"),
        ("Save _As", "_", "Save As"),
        ("開く(_O)", "_", "開く"),
        ("打开（_O）", "_", "打开"),
        ("snake_case_name", "_", "snake_case_name"),
        ("&Open", "&", "Open"),
        ("a &lt; b", "&", "a &lt; b"),
        ("~Open", "_~", "Open"),
        ("Rock & Roll", "&", "Rock & Roll"),
        ("100 %", "", "100 %"),
    ],
)
def test_mnemonics(text: str, markers: str, expected: str) -> None:
    assert strip_mnemonics(text, markers) == expected


@pytest.mark.parametrize(
    ("source", "english", "translation", "expected"),
    [
        ("wesnoth-campaigns", "female^Elf", "Elfe", ("Elf", "Elfe")),
        ("freeciv", "?unit:Horse", "?unit:Pferd", ("Horse", "Pferd")),
        ("gnucash", "verb|Open", "Öffnen", ("Open", "Öffnen")),
        ("gnucash", "This | that", "Dies | das", ("This | that", "Dies | das")),
        ("gimp", "a^b", "a^b", ("a^b", "a^b")),
    ],
)
def test_qualifiers(source: str, english: str, translation: str, expected: tuple[str, str]) -> None:
    bare = strip_qualifier(Message(english, translation), source)
    assert (bare.source, bare.translation) == expected
