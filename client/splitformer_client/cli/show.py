"""How translations are written: for people on a terminal, for programs elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitformer_client import aio
from splitformer_client.translation import Job
from splitformer_client.values import End, Translation

Write = Callable[[str, Sequence[Translation]], None]
"""Writes one source and its translations."""


def tab_writer(file: TextIO) -> Write:
    """Write `ja<TAB>text`, one line per language; every line of a longer text has the code.

    Of several hypotheses each is written as `ja<TAB>score<TAB>text`, best first.
    """

    def write(_source: str, translations: Sequence[Translation]) -> None:
        for translation in translations:
            for code, text in _coded(translation):
                for line in text.split("\n"):
                    file.write(f"{code}\t{line}\n")
        file.flush()

    return write


def json_writer(file: TextIO) -> Write:
    """Write one JSON object per source."""

    def write(source: str, translations: Sequence[Translation]) -> None:
        by_language = {each.language: _plain(each) for each in translations}
        line = json.dumps({"source": source, "translations": by_language}, ensure_ascii=False)
        file.write(line + "\n")
        file.flush()

    return write


def _coded(translation: Translation) -> list[tuple[str, str]]:
    """The texts of a translation, each with what goes before it."""
    if len(translation.hypotheses) < 2:
        return [(translation.language, translation.text)]
    return [(f"{translation.language}\t{h.score:.4f}", h.text) for h in translation.hypotheses]


def _plain(translation: Translation) -> dict[str, object]:
    plain: dict[str, object] = {
        "text": translation.text,
        "end": translation.end.reason.value,
        "tokens": len(translation.tokens),
        "log_probability": translation.log_probability,
    }
    if translation.hypotheses:
        plain["hypotheses"] = [
            {"text": h.text, "score": h.score, "end": h.reason.value, "tokens": len(h.tokens)}
            for h in translation.hypotheses
        ]
    return plain


async def show_live(client: aio.AsyncClient, job: Job, console: Console) -> None:
    """Show the tokens of all languages as they come, one line per language.

    A beam search shows what is certain at once; in the end, several hypotheses have a line each.
    """
    texts = dict.fromkeys(job.languages, "")
    events = client.translate_stream(
        job.text,
        job.languages,
        source_language=job.source_language,
        long_text=job.long_text,
        **job.options,
    )
    with Live(_table(texts), console=console, refresh_per_second=20) as live:
        async for language, event in events:
            texts[language] += event.text
            if isinstance(event, End) and len(event.hypotheses) > 1:
                texts[language] = "\n".join(f"{h.score:.4f}  {h.text}" for h in event.hypotheses)
            live.update(_table(texts))


def _table(texts: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for language, text in texts.items():
        table.add_row(Text(language, style="bold cyan"), Text(text))
    return table
