"""Speech through the client: what is said, in every form of audio, from whole files and live."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitformer.errors import (
    InvalidArgumentError,
    UnimplementedError,
)
from splitformer_client import Client, Segment, Token, aio, connect
from splitformer_client.memory import Memory
from tests.conftest import Services
from tests.support.hearing import PCM, answers, become_true, request, seek
from tests.support.servers import ServerThread
from tests.support.sounds import RATE, file_of, sound
from tests.support.whisper import make_whisper


def test_every_form_of_audio_gives_one_transcript(
    speech: Client, tmp_path: Path, hearing: Services
) -> None:
    samples = sound(2.2, 4)
    wav, flac = file_of(samples, subtype="FLOAT"), file_of(samples, "FLAC", "PCM_24")
    path = tmp_path / "speech.wav"
    path.write_bytes(wav)
    expected = speech.transcribe(samples, sample_rate=RATE)
    assert expected.text
    assert expected.duration == pytest.approx(2.2)
    assert expected.language in ("en", "zh", "de", "yue")
    raw = {"encoding": "pcm_f32le", "sample_rate": RATE, "channels": 1}
    stereo = np.stack([samples, samples], axis=1)
    with path.open("rb") as file:
        for audio, form in (
            (path, {}),
            (str(path), {}),
            (file, {}),
            (wav, {}),
            (samples.tobytes(), raw),
            (stereo, {"sample_rate": RATE}),
        ):
            assert speech.transcribe(audio, **form) == expected
    assert speech.transcribe(flac).duration == pytest.approx(2.2)


def test_a_stream_shows_tokens_and_then_what_is_certain(speech: Client) -> None:
    samples = sound(2.2, 4)
    whole = speech.transcribe(samples, sample_rate=RATE)
    events = list(speech.transcribe_stream(samples, sample_rate=RATE))
    assert tuple(e for e in events if isinstance(e, Segment)) == whole.segments
    assert isinstance(events[0], Token)
    assert "".join(segment.text for segment in whole.segments).strip() == whole.text


def test_leaving_a_stream_early_lets_go_of_everything(speech: Client, hearing: Services) -> None:
    with speech.transcribe_stream(sound(9), sample_rate=RATE) as events:
        next(events)
    become_true(lambda: hearing.encoder.service._audio_streams == 0)


async def test_chunks_that_are_still_coming(hearing: Services) -> None:
    data, pulled = file_of(sound(2.2, 4)), 0

    async def microphone() -> AsyncIterator[bytes]:
        nonlocal pulled
        for i in range(0, len(data), 5000):
            pulled += 1
            yield data[i : i + 5000]

    async with aio.connect(hearing.encoder.address, hearing.decoder.address) as client:
        live = await client.transcribe(microphone())
        assert live == await client.transcribe(data)
    assert pulled == -(-len(data) // 5000)


def test_an_hour_is_written_down_window_by_window(tmp_path: Path, servers: ServerThread) -> None:
    folder = make_whisper(tmp_path / "long-whisper", seconds=30)
    encoder = servers.start_encoder(folder)
    decoder = servers.start_decoder(folder, encoder)
    data = file_of(np.tile(sound(60), 60), "FLAC")
    with connect(encoder.address, decoder.address, timeout=500) as client:
        found = client.transcribe(data, timestamps=False, language="en")
    assert found.duration == pytest.approx(3600)
    assert [segment.start for segment in found.segments] == [30.0 * i for i in range(120)]
    assert encoder.service.store.used_bytes == 0


def test_what_cannot_be_asked_is_refused_by_name(speech: Client, tmp_path: Path) -> None:
    good = file_of(sound(2))
    with pytest.raises(FileNotFoundError):
        speech.transcribe(tmp_path / "none.wav")
    with pytest.raises(InvalidArgumentError, match="encoding: must be one of wav, flac"):
        speech.transcribe(good, encoding="mp3")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="task: must be one of transcribe, translate"):
        speech.transcribe(good, task="sing")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"must be one of .*en.* got 'xx'"):
        speech.transcribe(good, language="xx")


def window_memory(hearing: Services) -> Memory:
    """The memory of one second of sound."""
    header = request(header=PCM)
    chunk = request(chunk=sound(1).tobytes())
    window = answers(hearing.encoder, header, chunk, seek(0))[-1].window
    return Memory(window.reference.header, reference=window.reference)


def test_a_session_says_which_language_it_found(speech: Client, hearing: Services) -> None:
    memory = window_memory(hearing)
    with speech.open_session(memory, task="transcribe", timestamps=True) as session:
        assert session.language in ("en", "zh", "de", "yue")
        assert session.info().language == session.language
        english = [token.id for token in session.generate(max_new_tokens=5)]
        with session.fork(language="de") as other:
            assert other.language == "de"
            assert len([token.id for token in other.generate(max_new_tokens=5)]) == 5
        assert len(english) == 5
    speech.release(memory)


@pytest.mark.parametrize("options", [{"mode": "parallel"}, {"draft": "copy"}])
def test_drafts_and_parallel_decoding_are_refused(
    speech: Client, hearing: Services, options: dict[str, Any]
) -> None:
    memory = window_memory(hearing)
    with speech.open_session(memory, language="en", task="transcribe") as session:
        with pytest.raises(UnimplementedError) as refusal:
            list(session.generate(**options))
        assert refusal.value.reason == "OPTION_NOT_OFFERED"
        assert list(session.generate(max_new_tokens=3)), "the session is as it was"
    speech.release(memory)


def test_models_say_that_they_take_audio(speech: Client, services: Services) -> None:
    for info in (speech.encoder_info(), speech.decoder_info()):
        told = info.speech
        assert told is not None
        assert (told.sample_rate, told.window_seconds) == (RATE, 1.0)
        assert told.tasks == ("transcribe", "translate")
        assert told.detects_language
        assert told.time_seconds == pytest.approx(0.02)
    with connect(services.encoder.address, services.decoder.address) as text:
        assert text.encoder_info().speech is None
