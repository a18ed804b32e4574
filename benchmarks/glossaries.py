"""`glossaries`: whether terms come out, and what that does to the sentences around them.

The embedded model in int8, our own sentences into German, those in which a term of the glossary
occurs. Two glossaries: `odd` has words that the model would not have said, `usual` those that our
translations have. `terms_present` is the share of terms, as often as they occur in the source, that
the output contains as whole words; `chrf_to_plain` compares with the output without a glossary,
which is not to be high where words are swapped and articles follow them; `chrf_gain` is what the
glossary adds to chrF2 against our own translations. `characters` and `steps` are ratios to the
output without a glossary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.report import Report
from benchmarks.speculative import PLAIN, Bench, Outcome
from benchmarks.texts import chrf, lines
from splitformer.generation import GenerationOptions
from splitformer.generation.glossary import occurring
from splitformer.generation.terms import Term, lacking

LANGUAGE = "de"
GLOSSARIES: Mapping[str, Mapping[str, str]] = {
    "odd": {
        "file": "Dokument",
        "files": "Dokumente",
        "folder": "Verzeichnis",
        "message": "Mitteilung",
        "messages": "Mitteilungen",
        "disk": "Datenträger",
        "table": "Aufstellung",
        "cells": "Felder",
        "language": "Mundart",
        "layer": "Schicht",
        "picture": "Grafik",
        "chart": "Schaubild",
        "program": "Anwendung",
        "settings": "Vorgaben",
        "connection": "Leitung",
        "printer": "Druckgerät",
        "network": "Netz",
        "password": "Losung",
        "weather": "Klima",
        "castle": "Festung",
    },
    "usual": {
        "file": "Datei",
        "files": "Dateien",
        "folder": "Ordner",
        "messages": "Nachrichten",
        "disk": "Festplatte",
        "table": "Tabelle",
        "cells": "Zellen",
        "language": "Sprache",
        "layer": "Ebene",
        "picture": "Bild",
        "chart": "Diagramm",
        "program": "Programm",
        "connection": "Verbindung",
        "printer": "Drucker",
        "network": "Netzwerk",
        "password": "Passwort",
        "castle": "Burg",
    },
}


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `glossaries.*`; the same whether it is to be quick or not."""
    bench = Bench("")
    for name, glossary in GLOSSARIES.items():
        _measure(report, bench, f"glossaries.{name}", glossary)
    bench.close()


def _measure(report: Report, bench: Bench, name: str, glossary: Mapping[str, str]) -> None:
    entries = tuple(glossary.items())
    texts, references = lines("sentences.txt"), lines(f"sentences.{LANGUAGE}.txt")
    chosen = [i for i, text in enumerate(texts) if occurring(entries, text)]
    jobs = bench.jobs((texts[i], LANGUAGE) for i in chosen)
    held = [bench.decode(job, GenerationOptions(glossary=entries)) for job in jobs]
    plain = [bench.decode(job, PLAIN) for job in jobs]
    wanted = [_wanted(entries, job.text) for job in jobs]
    missing = sum(map(_missing, wanted, held))
    ours, theirs, right = _texts(held), _texts(plain), [references[i] for i in chosen]
    report.figure(f"{name}.sentences", len(jobs))
    report.figure(f"{name}.terms", sum(map(len, wanted)))
    report.figure(f"{name}.terms_present", 1 - missing / sum(map(len, wanted)))
    present = 1 - sum(map(_missing, wanted, plain)) / sum(map(len, wanted))
    report.figure(f"{name}.terms_present_without", present)
    report.figure(f"{name}.chrf_to_plain", chrf(ours, theirs))
    report.figure(f"{name}.chrf_gain", chrf(ours, right) - chrf(theirs, right))
    report.figure(f"{name}.characters", len("".join(ours)) / len("".join(theirs)))
    report.figure(f"{name}.steps", _steps(held) / _steps(plain))


def _wanted(entries: Sequence[tuple[str, str]], source: str) -> list[str]:
    """The target terms of a source, each as often as it must come."""
    found = occurring(entries, source)
    return [entries[i][1] for i, places in found.items() for _ in places]


def _missing(wanted: Sequence[str], outcome: Outcome) -> int:
    terms = sorted(set(wanted), key=len, reverse=True)
    counts = [wanted.count(term) for term in terms]
    return sum(lacking([Term(term, ()) for term in terms], counts, outcome.target.text))


def _texts(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.target.text for outcome in outcomes]


def _steps(outcomes: Sequence[Outcome]) -> int:
    return sum(outcome.steps for outcome in outcomes)
