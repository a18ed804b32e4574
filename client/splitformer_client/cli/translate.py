"""`splitformer translate`: text or lines in, translations out."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

from splitformer.errors import SplitformerError
from splitformer_client import aio
from splitformer_client.cli.glossary import for_languages, glossary_of
from splitformer_client.cli.jobs import Advance, Failures, progress, tell_encodes
from splitformer_client.cli.lines import Input, in_order
from splitformer_client.cli.options import (
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    BiasOption,
    CaOption,
    CertificateOption,
    DecoderOption,
    EncoderOption,
    KeyOption,
    TlsOption,
    biases_of,
    tls_choice,
)
from splitformer_client.cli.show import Write, json_writer, show_live, tab_writer
from splitformer_client.options import NO_PREFIXES, Draft, GenerationOptions, Mode
from splitformer_client.translation import Job
from splitformer_client.values import End, EndReason, Translation
from splitformer_client.wishes import Wishes

LINES_IN_FLIGHT = 16


class LongText(enum.StrEnum):
    """What to do with a text that is too long for the model."""

    SPLIT = "split"
    REFUSE = "refuse"


def translate(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    to: Annotated[
        list[str], typer.Option("--to", "-t", help="Target languages, for example ja,de.")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEXT", help="What to translate; if left out, lines of files or stdin."
        ),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", "-f", exists=True, dir_okay=False, help="Translate the lines of this file."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of stdout.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object per source.")
    ] = False,
    source_language: Annotated[
        str, typer.Option("--from", help="Language of the source; default: the model's own.")
    ] = "",
    prefix: Annotated[
        str,
        typer.Option(
            "--prefix",
            "--target-prefix",
            help="Beginning of the translation; it is shown with the rest.",
        ),
    ] = "",
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens per translation.")] = None,
    min_new_tokens: Annotated[
        int | None, typer.Option(help="Fewest tokens per translation.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Above 0: sample at this temperature; 0: greedy.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Sample among the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Sample among the likeliest tokens that sum to p.")
    ] = None,
    min_p: Annotated[
        float | None,
        typer.Option(help="Sample among tokens at least this fraction as likely as the likeliest."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: makes tokens that already occurred less likely.")
    ] = None,
    no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No sequence of this many tokens occurs twice.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End the translation before this text.")
    ] = None,
    bad_word: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A word that must not occur.")
    ] = None,
    suppressed_token: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="Id of a token that must not occur.")
    ] = None,
    logit_bias: BiasOption = None,
    num_beams: Annotated[
        int | None, typer.Option(help="Beam search with this many hypotheses.")
    ] = None,
    num_return_sequences: Annotated[
        int | None, typer.Option(help="Show this many hypotheses, with scores.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="Exponent of the length in the score of a hypothesis.")
    ] = None,
    early_stopping: Annotated[
        bool | None, typer.Option(help="End the search once there are so many hypotheses.")
    ] = None,
    glossary: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="File of terms to use, one SOURCE tab TARGET per line.",
        ),
    ] = None,
    term: Annotated[
        list[str] | None, typer.Option(metavar="SOURCE=TARGET", help="One term of a glossary.")
    ] = None,
    keep_placeholders: Annotated[
        bool, typer.Option(help="Make sure that %s, {name}, <b> and the like are kept.")
    ] = True,
    break_loops: Annotated[
        bool, typer.Option(help="Redo translations that repeat themselves, unless shown live.")
    ] = True,
    alternatives: Annotated[
        int | None, typer.Option(help="Show this many likely alternatives for each token.")
    ] = None,
    alignments: Annotated[
        bool,
        typer.Option("--alignments", help="Show which words of source and translation correspond."),
    ] = False,
    draft: Annotated[
        Draft | None, typer.Option(help="Speculative decoding: where guesses come from.")
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="Decode one token at a time, or all in parallel.")
    ] = None,
    max_passes: Annotated[
        int | None, typer.Option(help="Most passes of parallel decoding over a block.")
    ] = None,
    long_text: Annotated[
        LongText, typer.Option(help="Split a text that is too long into sentences, or refuse it.")
    ] = LongText.SPLIT,
    timeout: Annotated[float, typer.Option(help="Seconds per source.")] = 60.0,
    model: Annotated[str, typer.Option(help="Name of the model.")] = "",
    encoder: EncoderOption = DEFAULT_ENCODER,
    decoder: DecoderOption = DEFAULT_DECODER,
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
) -> None:
    """Translate text, or the lines of files or of standard input.

    On a terminal, tokens appear as they are produced. Elsewhere each translation is a line of
    language code, tab and text, in the order of the input. An empty line stays empty, and so does
    one that cannot be translated, which is reported on standard error. Several hypotheses are a
    line each, best first, with the score between code and text.

    With --alternatives, a line for each token follows the translation; with --alignments, a line
    for each pair of words. They start with the code and the word "token" or "aligned".
    """
    if texts and file:
        raise typer.BadParameter("give either TEXT or --file", param_hint="--file")
    languages = _languages(to)
    options = GenerationOptions(
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        repetition_penalty=repetition_penalty,
        no_repeat_ngram_size=no_repeat_ngram_size,
        stop=stop,
        bad_words=bad_word,
        suppressed_tokens=suppressed_token,
        logit_bias=biases_of(logit_bias),
        num_beams=num_beams,
        num_return_sequences=num_return_sequences,
        length_penalty=length_penalty,
        early_stopping=early_stopping,
        glossary=for_languages(glossary_of(glossary, term or []), languages),
        alternatives=alternatives,
        alignments=alignments or None,
        draft=draft,
        mode=mode,
        max_passes=max_passes,
    )
    prefixes = dict.fromkeys(languages, prefix) if prefix else NO_PREFIXES
    job = Job(
        "",
        languages,
        source_language,
        long_text.value,
        options=options,
        prefixes=prefixes,
        wishes=Wishes(keep_placeholders, break_loops),
    )
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key) or False
    client = aio.connect(encoder, decoder, model=model, tls=secured, timeout=timeout)
    source = Input(texts or [], file or [])
    console = Console()
    shown = console.is_terminal and output is None and not (alternatives or alignments)
    if source.texts and shown and not as_json:
        asyncio.run(_show(client, job, source.texts, console))
    else:
        _write(client, job, source, output, as_json)


def _languages(to: list[str]) -> tuple[str, ...]:
    """Read `ja,de` or several options."""
    codes = tuple(code.strip() for codes in to for code in codes.split(","))
    if not all(codes):
        raise typer.BadParameter("must be language codes, separated by commas", param_hint="--to")
    return codes


async def _show(client: aio.AsyncClient, job: Job, texts: list[str], console: Console) -> None:
    async with client:
        if len(job.languages) > 1:
            await tell_encodes(client, len(job.languages))
        for text in texts:
            await show_live(client, dataclasses.replace(job, text=text), console)


def _write(
    client: aio.AsyncClient, job: Job, source: Input, output: Path | None, as_json: bool
) -> None:
    failures = Failures()
    with progress(source) as advance, _opened(output) as file:
        write = json_writer(file) if as_json else tab_writer(file)
        asyncio.run(_run(client, job, source, write, advance, failures))
    failures.end()


async def _run(
    client: aio.AsyncClient,
    job: Job,
    source: Input,
    write: Write,
    advance: Advance,
    failures: Failures,
) -> None:
    """Translate all sources, encoding them on one stream; an error names the line it came with.

    A line that fails by its own fault is written as an empty one, and the others go on.
    """

    async def work(text: str) -> list[Translation] | SplitformerError:
        one = dataclasses.replace(job, text=text)
        if not source.is_lines:
            return await _translated(client, one)
        try:
            return _nothing(one) if not text.strip() else await _translated(client, one)
        except SplitformerError as error:
            return error

    results = in_order(source.sources(), work, LINES_IN_FLIGHT)
    async with client, client.bulk() as bulk, contextlib.aclosing(results):
        number, untold = 0, len(job.languages) > 1
        async for text, outcome in results:
            number += 1
            if untold and text.strip():
                untold = await tell_encodes(client, len(job.languages))
            if isinstance(outcome, SplitformerError):
                failures.tell(number, outcome)
                write(text, _nothing(job))
            else:
                write(text, outcome)
            advance(bulk.done)


def _nothing(job: Job) -> list[Translation]:
    """Translations of an empty line."""
    return [Translation(language, "", (), End(EndReason.EOS, 0)) for language in job.languages]


async def _translated(client: aio.AsyncClient, job: Job) -> list[Translation]:
    """Translate one source."""
    return await client.translate(
        job.text,
        job.languages,
        source_language=job.source_language,
        long_text=job.long_text,
        target_prefix=job.prefixes,
        keep_placeholders=job.wishes.keep_placeholders,
        break_loops=job.wishes.break_loops,
        **job.options,
    )


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Give the file to write to, as UTF-8."""
    if output is not None:
        with output.open("w", encoding="utf-8") as file:
            yield file
    else:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(encoding="utf-8")
        yield sys.stdout
