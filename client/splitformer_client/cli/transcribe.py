"""`splitformer transcribe`: audio in, what was said out."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, cast

import typer

from splitformer_client import aio
from splitformer_client.audio import Audio, AudioEncoding, AudioForm
from splitformer_client.cli.options import (
    DEFAULT_DECODER,
    DEFAULT_ENCODER,
    CaOption,
    CertificateOption,
    DecoderOption,
    EncoderOption,
    KeyOption,
    TlsOption,
    tls_choice,
)
from splitformer_client.values import Segment


class Encoding(enum.StrEnum):
    """How the bytes are to be read."""

    AUTO = "auto"
    WAV = "wav"
    FLAC = "flac"
    PCM_S16LE = "pcm_s16le"
    PCM_F32LE = "pcm_f32le"


class Task(enum.StrEnum):
    """What to write."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


class Form(enum.StrEnum):
    """How segments are written."""

    TEXT = "text"
    TIMES = "times"
    SRT = "srt"
    VTT = "vtt"
    JSON = "json"


def transcribe(  # noqa: PLR0913, PLR0917 - the options of a command are its arguments
    file: Annotated[Path, typer.Argument(help="WAV, FLAC or raw samples; - for stdin.")],
    language: Annotated[
        str, typer.Option("--language", "-l", help="Spoken language; default: detect it.")
    ] = "",
    task: Annotated[
        Task, typer.Option(help="Write what was said, or translate it into English.")
    ] = Task.TRANSCRIBE,
    form: Annotated[
        Form,
        typer.Option("--format", "-f", help="Text, text with times, subtitles, or JSON lines."),
    ] = Form.TEXT,
    encoding: Annotated[
        Encoding, typer.Option(help="Encoding of the audio; auto: read it from the file.")
    ] = Encoding.AUTO,
    sample_rate: Annotated[int, typer.Option(help="Sample rate of raw samples, in Hz.")] = 0,
    channels: Annotated[int, typer.Option(help="Channels of raw samples.")] = 0,
    num_beams: Annotated[
        int | None, typer.Option(help="Beam search with this many hypotheses.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds in all; default: no limit.")
    ] = None,
    model: Annotated[str, typer.Option(help="Name of the model.")] = "",
    encoder: EncoderOption = DEFAULT_ENCODER,
    decoder: DecoderOption = DEFAULT_DECODER,
    tls: TlsOption = None,
    tls_ca: CaOption = "",
    tls_certificate: CertificateOption = "",
    tls_key: KeyOption = "",
) -> None:
    """Transcribe audio of any length, phrase by phrase as it is processed."""
    secured = tls_choice(tls, tls_ca, tls_certificate, tls_key) or False
    client = aio.connect(encoder, decoder, model=model, tls=secured)
    named = cast("AudioEncoding", encoding.value)
    read_as = AudioForm("" if encoding is Encoding.AUTO else named, sample_rate, channels)
    audio: Audio = sys.stdin.buffer if str(file) == "-" else file
    heard = _heard(client, audio, read_as, language, task, num_beams, timeout)
    asyncio.run(_write(heard, _WRITERS[form], form is Form.VTT))


async def _heard(
    client: aio.AsyncClient,
    audio: Audio,
    form: AudioForm,
    language: str,
    task: Task,
    num_beams: int | None,
    timeout: float | None,  # noqa: ASYNC109 (the deadline of an operation)
) -> AsyncIterator[Segment]:
    async with client:
        events = client.transcribe_stream(
            audio,
            language=language,
            task=task.value,
            encoding=form.encoding,
            sample_rate=form.sample_rate,
            channels=form.channels,
            timeout=timeout,
            num_beams=num_beams,
        )
        async with contextlib.aclosing(events):
            async for event in events:
                if isinstance(event, Segment):
                    yield event


async def _write(
    segments: AsyncIterator[Segment], written: Callable[[int, Segment], str], is_vtt: bool
) -> None:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    if is_vtt:
        print("WEBVTT\n")  # noqa: T201
    number = 0
    async for segment in segments:
        number += 1
        print(written(number, segment), flush=True)  # noqa: T201


def _text(number: int, segment: Segment) -> str:
    return segment.text.strip()


def _times(number: int, segment: Segment) -> str:
    return f"[{_clock(segment.start)} --> {_clock(segment.end)}] {_text(number, segment)}"


def _srt(number: int, segment: Segment) -> str:
    times = f"{_clock(segment.start, ',')} --> {_clock(segment.end, ',')}"
    return f"{number}\n{times}\n{_text(number, segment)}\n"


def _vtt(number: int, segment: Segment) -> str:
    return f"{_clock(segment.start)} --> {_clock(segment.end)}\n{_text(number, segment)}\n"


def _json(number: int, segment: Segment) -> str:
    values = {"start": round(segment.start, 3), "end": round(segment.end, 3), "text": segment.text}
    return json.dumps(values, ensure_ascii=False)


_WRITERS: dict[Form, Callable[[int, Segment], str]] = {
    Form.TEXT: _text,
    Form.TIMES: _times,
    Form.SRT: _srt,
    Form.VTT: _vtt,
    Form.JSON: _json,
}


def _clock(seconds: float, point: str = ".") -> str:
    """Hours, minutes, seconds and milliseconds, as subtitles have them."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest:02}{point}{milliseconds:03}"
