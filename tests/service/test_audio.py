"""Audio over the wire: windows on demand, refusals by name, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from encoder_service.service import EncoderService
from splitformer import wire
from splitformer.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SplitformerError,
    UnimplementedError,
)
from splitformer.v1 import encoder_service_pb2 as pb
from splitformer.v1.encoder_service_pb2_grpc import EncoderServiceStub
from splitformer_client import Client, Segment, Token, aio, connect
from splitformer_client.memory import Memory
from tests.conftest import Services, nothing_is_held
from tests.support.servers import Running, ServerThread
from tests.support.sounds import RATE, file_of, sound
from tests.support.waiting import comes_true
from tests.support.whisper import make_whisper

PCM = pb.AudioHeader(encoding=pb.AUDIO_ENCODING_PCM_F32LE, sample_rate=RATE, channels=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper") / "tiny-whisper")


@pytest.fixture(scope="module")
def hearing(folder: Path, server_loop: asyncio.AbstractEventLoop) -> Iterator[Services]:
    """Both services over one tiny Whisper."""
    thread = ServerThread(server_loop)
    encoder = thread.start_encoder(folder)
    yield Services(encoder, thread.start_decoder(folder, encoder), folder)
    thread.close()


def become_true(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds: servers learn a moment later that a caller has left."""
    asyncio.run(comes_true(condition))


@pytest.fixture
def client(hearing: Services) -> Iterator[Client]:
    with connect(hearing.encoder.address, hearing.decoder.address, timeout=60) as client:
        yield client
    become_true(lambda: nothing_is_held(hearing))


@contextlib.contextmanager
def talking(encoder: Running[EncoderService]) -> Iterator[EncoderServiceStub]:
    with grpc.insecure_channel(encoder.address) as channel:
        yield EncoderServiceStub(channel)


def request(**part: Any) -> pb.EncodeAudioRequest:
    return pb.EncodeAudioRequest(**part)


def seek(seconds: float) -> pb.EncodeAudioRequest:
    return request(seek=pb.AudioSeek(start_seconds=seconds))


def answers(
    encoder: Running[EncoderService], *requests: pb.EncodeAudioRequest
) -> list[pb.EncodeAudioResponse]:
    """Send everything at once and close; failures are exceptions of ours."""
    with talking(encoder) as stub:
        try:
            return list(stub.EncodeAudio(iter(requests), timeout=60))
        except grpc.RpcError as error:
            raise raised(error) from None


def raised(error: Any) -> SplitformerError:
    details = dict(error.trailing_metadata())[wire.STATUS_DETAILS_KEY]
    return wire.error_of(int(error.code().value[0]), error.details(), details)


def release(encoder: Running[EncoderService], window: pb.AudioWindow) -> None:
    reference = window.reference
    encoder.service.store.release(reference.memory_id, reference.lease.lease_id)


def test_windows_come_as_they_are_asked_for(hearing: Services) -> None:
    encoder, samples = hearing.encoder, sound(2.5)
    chunk = request(chunk=samples.tobytes())
    first, second = answers(encoder, request(header=PCM), chunk, seek(0.5)), None
    window = first[-1].window
    assert (window.start_seconds, window.duration_seconds, window.last) == (0.5, 1.0, False)
    assert list(window.reference.header.shape) == [50, 32]
    assert not window.reference.header.source_tokens
    assert window.timings.encode_seconds > 0
    second = answers(encoder, request(header=PCM), chunk, request(end=pb.AudioEnd()), seek(2))
    last = second[-1].window
    assert (last.start_seconds, last.duration_seconds, last.last) == (2.0, 0.5, True)
    for each in (window, last):
        release(encoder, each)
    assert nothing_is_held(hearing)


def test_audio_is_asked_for_as_the_window_needs_it(hearing: Services) -> None:
    """A caller who waits to be asked sends no more than that."""
    sent = []

    def requests() -> Iterator[pb.EncodeAudioRequest]:
        yield request(header=PCM)
        yield seek(0)
        yield from iter(outbox.get, None)

    outbox: queue.SimpleQueue[pb.EncodeAudioRequest | None] = queue.SimpleQueue()
    with talking(hearing.encoder) as stub:
        stream = stub.EncodeAudio(requests(), timeout=60)
        message = next(stream)
        while message.HasField("wanted"):
            sent.append(message.wanted.bytes)
            outbox.put(request(chunk=sound(1.5).tobytes()))
            message = next(stream)
        assert message.window.duration_seconds == 1.0
        release(hearing.encoder, message.window)
        assert len(sent) == 1
        outbox.put(None)


BAD: list[tuple[list[pb.EncodeAudioRequest], str, str]] = [
    ([], "NO_HEADER", "header: must come first"),
    ([seek(0)], "NO_HEADER", "header: must come first"),
    ([request(header=pb.AudioHeader())], "BAD_ENCODING", "must be one of AUDIO_ENCODING_WAV"),
    (
        [request(header=pb.AudioHeader(encoding=pb.AUDIO_ENCODING_PCM_S16LE, channels=1))],
        "BAD_SAMPLE_RATE",
        "header.sample_rate: must be 4000 to 192000 Hz, got 0",
    ),
    (
        [
            request(
                header=pb.AudioHeader(
                    encoding=pb.AUDIO_ENCODING_PCM_S16LE, sample_rate=16000, channels=8
                )
            )
        ],
        "BAD_CHANNELS",
        "header.channels: must be 1 to 2, got 8",
    ),
    (
        [request(header=pb.AudioHeader(encoding=pb.AUDIO_ENCODING_WAV, lease_ms=-1))],
        "BAD_LEASE",
        "lease_ms",
    ),
    (
        [request(header=pb.AudioHeader(model="x", encoding=pb.AUDIO_ENCODING_WAV))],
        "MODEL_NOT_FOUND",
        "got 'x'",
    ),
    ([request(header=PCM), seek(0)], "EMPTY_AUDIO", "audio: must hold samples, got 0"),
    ([request(header=PCM), seek(-1)], "BAD_SEEK", "must be a finite number of at least 0, got -1"),
    (
        [request(header=PCM), seek(0), seek(0)],
        "BAD_SEEK",
        "seek.start_seconds: must wait for the answer to the last one",
    ),
    ([request(header=PCM), request(header=PCM)], "MALFORMED_REQUEST", "got 'header'"),
    ([request(header=PCM), pb.EncodeAudioRequest()], "MALFORMED_REQUEST", "part: must be a seek"),
    (
        [request(header=PCM), request(end=pb.AudioEnd()), request(chunk=b"1234")],
        "MALFORMED_REQUEST",
        "or a chunk before that",
    ),
    (
        [request(header=PCM), request(chunk=bytes(4 * RATE)), seek(1)],
        "BAD_SEEK",
        "must lie within the audio, which ends at 1, got 1.0",
    ),
    (
        [
            request(header=pb.AudioHeader(encoding=pb.AUDIO_ENCODING_WAV)),
            request(chunk=b"no sound" * 99),
            seek(0),
        ],
        "BAD_AUDIO",
        "audio: must be a sound WAV file, got 'Format not recognised.'",
    ),
    (
        [
            request(header=pb.AudioHeader(encoding=pb.AUDIO_ENCODING_FLAC)),
            request(chunk=file_of(sound(0.9), "FLAC")[:9000]),
            seek(0),
        ],
        "AUDIO_TRUNCATED",
        "audio: must be complete",
    ),
]


@pytest.mark.parametrize(("requests", "reason", "message"), BAD)
def test_bad_streams_are_refused_by_name(
    hearing: Services, requests: list[pb.EncodeAudioRequest], reason: str, message: str
) -> None:
    with pytest.raises(SplitformerError) as caught:
        answers(hearing.encoder, *requests)
    assert caught.value.reason == reason
    assert message in caught.value.message
    become_true(lambda: nothing_is_held(hearing))
    become_true(lambda: hearing.encoder.service._audio_streams == 0)


def test_who_sends_far_more_than_is_asked_for_is_refused(hearing: Services) -> None:
    chunks = [request(chunk=bytes(10**6))] * 20
    with pytest.raises(ResourceExhaustedError, match="send no more than is asked for"):
        answers(hearing.encoder, request(header=PCM), *chunks)


def test_silent_and_surplus_streams(folder: Path, servers: ServerThread) -> None:
    encoder = servers.start_encoder(folder, max_audio_streams=1, audio_idle_seconds=0.3)

    def silence() -> Iterator[pb.EncodeAudioRequest]:
        yield request(header=PCM)
        yield seek(0)
        yield from iter(lambda: held.get(timeout=30), None)

    held: queue.Queue[None] = queue.Queue()
    with talking(encoder) as stub:
        stream = stub.EncodeAudio(silence(), timeout=60)
        assert next(stream).wanted.bytes > 0
        with pytest.raises(ResourceExhaustedError) as caught:
            answers(encoder, request(header=PCM), seek(0))
        assert caught.value.reason == "TOO_MANY_AUDIO_STREAMS"
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        error = raised(ended.value)
        assert isinstance(error, DeadlineExceededError)
        assert error.reason == "AUDIO_STALLED"
        held.put(None)


def test_kinds_of_sources_are_not_mixed_up(hearing: Services, services: Services) -> None:
    with connect(hearing.encoder.address, hearing.decoder.address) as client:
        for source in ("text", [1, 2]):
            with pytest.raises(InvalidArgumentError, match="use EncodeAudio for audio") as caught:
                client.encode(source)
            assert caught.value.reason == "SOURCE_IS_AUDIO"
        with pytest.raises(InvalidArgumentError, match="use EncodeAudio for audio"):
            client.embed("text")
    with pytest.raises(InvalidArgumentError, match="use Encode for text") as caught:
        answers(services.encoder, request(header=PCM))
    assert caught.value.reason == "SOURCE_IS_TEXT"
    with connect(services.encoder.address, services.decoder.address) as client:
        with pytest.raises(InvalidArgumentError, match="must take audio"):
            client.transcribe(sound(1), sample_rate=RATE)
        memory = client.encode("Open the file.", delivery="reference")
        with pytest.raises(InvalidArgumentError, match="this model's sources are text"):
            client.open_session(memory, language="de", task="transcribe")
        client.release(memory)


def test_every_form_of_audio_gives_one_transcript(
    client: Client, tmp_path: Path, hearing: Services
) -> None:
    samples = sound(2.2, 4)
    wav, flac = file_of(samples, subtype="FLOAT"), file_of(samples, "FLAC", "PCM_24")
    path = tmp_path / "speech.wav"
    path.write_bytes(wav)
    expected = client.transcribe(samples, sample_rate=RATE)
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
            assert client.transcribe(audio, **form) == expected
    assert client.transcribe(flac).duration == pytest.approx(2.2)


def test_a_stream_shows_tokens_and_then_what_is_certain(client: Client) -> None:
    samples = sound(2.2, 4)
    whole = client.transcribe(samples, sample_rate=RATE)
    events = list(client.transcribe_stream(samples, sample_rate=RATE))
    assert tuple(e for e in events if isinstance(e, Segment)) == whole.segments
    assert isinstance(events[0], Token)
    assert "".join(segment.text for segment in whole.segments).strip() == whole.text


def test_leaving_a_stream_early_lets_go_of_everything(client: Client, hearing: Services) -> None:
    with client.transcribe_stream(sound(9), sample_rate=RATE) as events:
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


def test_an_hour_is_heard_in_the_room_of_a_few_windows(client: Client, hearing: Services) -> None:
    """Of an hour of FLAC only what the windows need is decoded at a time; here the last second."""
    data = file_of(np.concatenate([np.zeros(3599 * RATE, np.float32), sound(1)]), "FLAC")
    header = request(header=pb.AudioHeader(encoding=pb.AUDIO_ENCODING_FLAC))
    chunks = [request(chunk=data[i : i + 100_000]) for i in range(0, len(data), 100_000)]
    window = answers(hearing.encoder, header, seek(3599), *chunks)[-1].window
    assert (window.start_seconds, window.duration_seconds, window.last) == (3599.0, 1.0, True)
    release(hearing.encoder, window)


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
    client: Client,
    hearing: Services,
    tmp_path: Path,
    data: bytes,
    form: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.transcribe(data, **form)
    assert caught.value.reason == reason
    path = tmp_path / "talk"
    path.write_bytes(data)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in form.items()]
    done = command(hearing, str(path), *options)
    assert done.returncode == 1
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("error: ")
    assert line.endswith(f"({reason})")
    assert client.transcribe(GOOD).segments, "nobody else is harmed"


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
    client: Client, hearing: Services, tmp_path: Path
) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(GOOD)
    searched = client.transcribe(GOOD, num_beams=4)
    assert searched.segments
    assert searched.text != client.transcribe(GOOD).text, "searching made no difference"
    done = command(hearing, str(path), "--num-beams", "4", "--format", "json")
    lines = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [line["text"] for line in lines] == [each.text for each in searched.segments]


def test_what_cannot_be_asked_is_refused_by_name(client: Client, tmp_path: Path) -> None:
    good = GOOD
    with pytest.raises(FileNotFoundError):
        client.transcribe(tmp_path / "none.wav")
    with pytest.raises(InvalidArgumentError, match="encoding: must be one of wav, flac"):
        client.transcribe(good, encoding="mp3")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="task: must be one of transcribe, translate"):
        client.transcribe(good, task="sing")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match=r"must be one of .*en.* got 'xx'"):
        client.transcribe(good, language="xx")


def window_memory(hearing: Services) -> Memory:
    """The memory of one second of sound."""
    header = request(header=PCM)
    chunk = request(chunk=sound(1).tobytes())
    window = answers(hearing.encoder, header, chunk, seek(0))[-1].window
    return Memory(window.reference.header, reference=window.reference)


def test_a_session_says_which_language_it_found(client: Client, hearing: Services) -> None:
    memory = window_memory(hearing)
    with client.open_session(memory, task="transcribe", timestamps=True) as session:
        assert session.language in ("en", "zh", "de", "yue")
        assert session.info().language == session.language
        english = [token.id for token in session.generate(max_new_tokens=5)]
        with session.fork(language="de") as other:
            assert other.language == "de"
            assert len([token.id for token in other.generate(max_new_tokens=5)]) == 5
        assert len(english) == 5
    client.release(memory)


@pytest.mark.parametrize("options", [{"mode": "parallel"}, {"draft": "copy"}])
def test_drafts_and_parallel_decoding_are_refused(
    client: Client, hearing: Services, options: dict[str, Any]
) -> None:
    memory = window_memory(hearing)
    with client.open_session(memory, language="en", task="transcribe") as session:
        with pytest.raises(UnimplementedError) as refusal:
            list(session.generate(**options))
        assert refusal.value.reason == "OPTION_NOT_OFFERED"
        assert list(session.generate(max_new_tokens=3)), "the session is as it was"
    client.release(memory)


def test_models_say_that_they_take_audio(client: Client, services: Services) -> None:
    for info in (client.encoder_info(), client.decoder_info()):
        speech = info.speech
        assert speech is not None
        assert (speech.sample_rate, speech.window_seconds) == (RATE, 1.0)
        assert speech.tasks == ("transcribe", "translate")
        assert speech.detects_language
        assert speech.time_seconds == pytest.approx(0.02)
    with connect(services.encoder.address, services.decoder.address) as text:
        assert text.encoder_info().speech is None


@pytest.mark.parametrize("form", ["text", "times", "srt", "vtt", "json"])
def test_the_command(hearing: Services, client: Client, tmp_path: Path, form: str) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(file_of(sound(2.2, 4)))
    segments = client.transcribe(path).segments
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
