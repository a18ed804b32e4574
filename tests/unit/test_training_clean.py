"""Filters, sentence splitting and HTML alignment."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.clean import normalize, rejection, segments, split_sentences
from training.html_pairs import Block, align, page_pairs, pages, read_blocks


@pytest.mark.parametrize(
    ("english", "translation", "language", "reason"),
    [
        ("Open the file", "Öffnen Sie die Datei", "de", None),
        ("Open the file", "ファイルを開きます", "ja", None),
        ("%s: <b>%d</b>", "%s : <b>%d</b>", "fr", "no words"),
        ("Name", "Name", "de", "identical"),
        ("SUMIFS", "SUMMEWENNS", "de", "identifier"),
        ("OK", "Aceptar", "es", None),
        ("word " * 101, "Wort " * 101, "de", "too long"),
        ("Size: %d", "%d:", "de", "no words in the translation"),
        ("The file could not be opened", "The file could not be opened.", "ja", "untranslated"),
        ("Close the current window now please", "关闭当前的窗口", "ja", "untranslated"),
        ("Select one of the open files", "Select one of the open Files!", "de", "untranslated"),
        ("Delete all selected files now", "Ja", "de", "length ratio"),
    ],
)
def test_rejection(english: str, translation: str, language: str, reason: str | None) -> None:
    assert rejection(english, translation, language) == reason


def test_normalize() -> None:
    assert normalize(" a\u00a0 b\n\tc\u00ad ") == "a b c"
    assert normalize("これは\n  ペンです。", "ja") == "これはペンです。"


def test_sentences_are_joined_again_after_abbreviations() -> None:
    text = "Use a color, e.g. Red is fine. Then save it."
    assert split_sentences(text, "en") == ["Use a color, e.g. Red is fine.", "Then save it."]
    assert split_sentences("開きます。「はい。」と言う。", "ja") == [
        "開きます。",
        "「はい。」と言う。",
    ]


def test_segments_cut_where_both_sides_agree() -> None:
    english = "Open the file that you want to edit. Then choose Save from the menu to keep it."
    german = "Öffnen Sie die Datei zum Bearbeiten. Wählen Sie dann im Menü Speichern, fertig."
    cut = list(segments(english, german, "de", sentences=True))
    assert [pair[0] for pair in cut] == split_sentences(english, "en")
    assert list(segments(english, german, "de", sentences=False)) == [(english, german)]
    one = german.replace(". W", ", w")
    assert list(segments(english, one, "de", sentences=True)) == [(english, one)]


def test_paragraphs_are_paired_only_if_they_are_as_many() -> None:
    assert list(segments("A b\n\nC d", "E f\n\nG h", "de", sentences=False)) == [
        ("A b", "E f"),
        ("C d", "G h"),
    ]
    assert list(segments("A b\n\nC d", "E f", "de", sentences=False)) == [("A b C d", "E f")]


PAGE = """<html><head><title>x</title></head><body><div class="toc">no</div>
<h1 id="hd_1">{title}</h1><p id="par_1">{text}<br/>more</p><pre>code</pre>
<p id="par_2">Use <span class="WRITER">Writer</span></p><ul><li>{item}</li></ul></body></html>"""


def write_page(folder: Path, title: str, text: str, item: str) -> Path:
    folder.mkdir()
    page = folder / "page.html"
    page.write_text(PAGE.format(title=title, text=text, item=item), encoding="utf-8")
    return page


def test_pages_of_one_structure_align(tmp_path: Path) -> None:
    skipped = frozenset({"toc"})
    english = read_blocks(write_page(tmp_path / "en", "1. Files", "Open it", "One"), skipped)
    german = read_blocks(write_page(tmp_path / "de", "1. Dateien", "Öffnen", "Eins"), skipped)
    assert list(page_pairs(english, german, "de")) == [
        ("Files", "Dateien"),
        ("Open it more", "Öffnen more"),
        ("One", "Eins"),
    ]
    assert pages(tmp_path, ".html").keys() == {"en/page", "de/page"}


def test_pages_that_differ_align_where_anchors_agree() -> None:
    left = [Block("p#par_1", "a"), Block("p#par_2", "b"), Block("p#", "c")]
    right = [Block("p#", "x"), Block("p#par_2", "y"), Block("div#", "z")]
    assert align(left, right) == [(left[1], right[1])]
