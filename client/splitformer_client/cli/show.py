"""How translations are written: for people on a terminal, for programs elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from splitformer_client import aio
from splitformer_client.spans import Span
from splitformer_client.translation import Job
from splitformer_client.values import Alternative, End, Token, Translation

Write = Callable[[str, Sequence[Translation]], None]
"""Writes one source and its translations."""


def tab_writer(file: TextIO) -> Write:
    """Write `ja<TAB>text`, one line per language; every line of a longer text has the code.

    Of several hypotheses each is written as `ja<TAB>score<TAB>text`, best first. Details follow a
    translation, in lines of more fields: `ja<TAB>token<TAB>...` and `ja<TAB>aligned<TAB>...`.
    """

    def write(_source: str, translations: Sequence[Translation]) -> None:
        for translation in translations:
            for code, text in _coded(translation):
                for line in text.split("\n"):
                    file.write(f"{code}\t{line}\n")
            for fields in _details(translation):
                file.write("\t".join((translation.language, *fields)) + "\n")
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
        return [(translation.language, translation.prefix + translation.text)]
    return [
        (f"{translation.language}\t{h.score:.4f}", translation.prefix + h.text)
        for h in translation.hypotheses
    ]


def _details(translation: Translation) -> Iterator[list[str]]:
    """What is told beside the text: tokens with others that were likely, words that align."""
    for token in translation.tokens:
        likely: list[Token | Alternative] = [token, *token.alternatives]
        if token.alternatives:
            told = ((_field(each.text), f"{each.log_probability:.4f}") for each in likely)
            yield ["token", *(field for pair in told for field in pair)]
    for pair in translation.alignments:
        words = pair.source.of(translation.source), pair.target.of(translation.text)
        yield ["aligned", *map(_field, words)]


def _field(text: str) -> str:
    """Write a text so that it is one field of one line."""
    return text.replace("\t", " ").replace("\n", " ")


def _plain(translation: Translation) -> dict[str, object]:
    plain: dict[str, object] = {
        "text": translation.prefix + translation.text,
        "end": translation.end.reason.value,
        "tokens": len(translation.tokens),
        "log_probability": translation.log_probability,
    }
    if translation.hypotheses:
        plain["hypotheses"] = [
            {
                "text": translation.prefix + h.text,
                "score": h.score,
                "end": h.reason.value,
                "tokens": len(h.tokens),
            }
            for h in translation.hypotheses
        ]
    if any(token.alternatives for token in translation.tokens):
        plain["alternatives"] = [
            {**_likely(token), "others": [_likely(each) for each in token.alternatives]}
            for token in translation.tokens
        ]
    if pairs := translation.alignments:
        plain["alignments"] = [
            {
                "source": _placed(pair.source, translation.source),
                "target": _placed(pair.target, translation.text, len(translation.prefix)),
            }
            for pair in pairs
        ]
    return plain


def _likely(token: Token | Alternative) -> dict[str, object]:
    return {"text": token.text, "log_probability": token.log_probability}


def _placed(span: Span, text: str, shift: int = 0) -> dict[str, object]:
    """A word, and the characters of the whole text that it is."""
    return {"text": span.of(text), "begin": shift + span.begin, "end": shift + span.end}


async def show_live(client: aio.AsyncClient, job: Job, console: Console) -> None:
    """Show the tokens of all languages as they come, one line per language.

    Tokens that are there together come in one message: nobody sees them one by one.

    A beam search shows what is certain at once; in the end, several hypotheses have a line each.
    """
    prefixes = {each: str(job.prefixes.get(each, "")) for each in job.languages}
    texts = dict(prefixes)
    events = client.translate_stream(
        job.text,
        job.languages,
        source_language=job.source_language,
        long_text=job.long_text,
        target_prefix=job.prefixes,
        max_tokens_per_message=aio.TOKENS_PER_MESSAGE,
        keep_placeholders=job.wishes.keep_placeholders,
        **job.options,
    )
    with Live(_table(texts), console=console, refresh_per_second=20) as live:
        async for language, event in events:
            texts[language] += event.text
            if isinstance(event, End) and len(event.hypotheses) > 1:
                before = prefixes[language]
                lines = (f"{h.score:.4f}  {before}{h.text}" for h in event.hypotheses)
                texts[language] = "\n".join(lines)
            live.update(_table(texts))


def _table(texts: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for language, text in texts.items():
        table.add_row(Text(language, style="bold cyan"), Text(text))
    return table
