"""`splitformer transcribe`: what it writes, and what it says of audio that is broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitformer.errors import (
    InvalidArgumentError,
)
from splitformer_client import Client
from tests.conftest import Services
from tests.support.sounds import RATE, file_of, sound

GOOD, FLAC = file_of(sound(2)), file_of(sound(2), "FLAC")
RAW = {"encoding": "pcm_s16le", "sample_rate": RATE, "channels": 1}
BROKEN: list[tuple[bytes, dict[str, Any], str]] = [
    (GOOD[:-100], {}, "AUDIO_TRUNCATED"),
    (GOOD[:30], {}, "BAD_AUDIO"),
    (GOOD[:20] + b"\xff" * 16 + GOOD[36:], {}, "BAD_AUDIO"),
    (FLAC[: len(FLAC) // 2], {}, "AUDIO_TRUNCATED"),
    (FLAC[:40], {}, "BAD_AUDIO"),
    (FLAC[:20_000] + b"\xff" * 300 + FLAC[20_300:], {}, "BAD_AUDIO"),
    (file_of(np.zeros((16000, 8), np.float32)), {}, "BAD_CHANNELS"),
    (file_of(sound(1), rate=1000), {}, "BAD_SAMPLE_RATE"),
    (file_of(sound(0)), {}, "EMPTY_AUDIO"),
    (b"", {}, "BAD_ENCODING"),
    (b"plain text", {}, "BAD_ENCODING"),
    (bytes(2 * RATE + 1), RAW, "AUDIO_TRUNCATED"),
    (b"", RAW, "EMPTY_AUDIO"),
    (bytes(2 * RATE), {**RAW, "channels": 8}, "BAD_CHANNELS"),
    (bytes(2 * RATE), {**RAW, "sample_rate": 96_000_000}, "BAD_SAMPLE_RATE"),
    (GOOD, {"sample_rate": RATE}, "BAD_SAMPLE_RATE"),
]


@pytest.mark.parametrize(("data", "form", "reason"), BROKEN)
def test_broken_audio_is_refused_by_name_and_by_the_command_in_one_line(
    speech: Client,
    hearing: Services,
    tmp_path: Path,
    data: bytes,
    form: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        speech.transcribe(data, **form)
    assert caught.value.reason == reason
    path = tmp_path / "talk"
    path.write_bytes(data)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in form.items()]
    done = command(hearing, str(path), *options)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"({reason})")
    assert speech.transcribe(GOOD).segments, "nobody else is harmed"


def command(hearing: Services, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run `splitformer transcribe`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "SPLITFORMER_ENCODER": hearing.encoder.address,
        "SPLITFORMER_DECODER": hearing.decoder.address,
    }
    line = [sys.executable, "-m", "splitformer_client", "transcribe", *arguments]
    return subprocess.run(line, env=environment, capture_output=True, timeout=60, check=False)


def test_the_command_searches_like_the_client(
    speech: Client, hearing: Services, tmp_path: Path
) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(GOOD)
    searched = speech.transcribe(GOOD, num_beams=4)
    assert searched.segments
    assert searched.text != speech.transcribe(GOOD).text, "searching made no difference"
    done = command(hearing, str(path), "--num-beams", "4", "--format", "json")
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [line["text"] for line in lines] == [each.text for each in searched.segments]


@pytest.mark.parametrize("form", ["text", "times", "srt", "vtt", "json"])
def test_the_command(hearing: Services, speech: Client, tmp_path: Path, form: str) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(file_of(sound(2.2, 4)))
    segments = speech.transcribe(path).segments
    done = command(hearing, "-f", form, str(path))
    assert done.returncode == 0, done.stderr
    written = done.stdout.decode()
    if form == "json":
        texts = [json.loads(line)["text"] for line in written.splitlines()]
        assert texts == [segment.text for segment in segments]
    else:
        for segment in segments:
            assert segment.text.strip() in written
        assert written.count(" --> ") == (0 if form == "text" else len(segments))
    assert written.startswith("WEBVTT") == (form == "vtt")


def test_the_command_reports_what_is_wrong_in_one_line(hearing: Services, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(file_of(sound(2))[:-100])
    for arguments, message in (
        ([str(path)], "(AUDIO_TRUNCATED)"),
        ([str(tmp_path / "none.wav")], "No such file or directory (OS_ERROR)"),
        ([str(path), "--encoding", "pcm_s16le"], "must be 4000 to 192000 Hz, got 0"),
    ):
        done = command(hearing, *arguments)
        assert done.returncode == 1
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("error: ")
        assert message in line
