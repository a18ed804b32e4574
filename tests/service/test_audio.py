"""Audio over the wire: windows on demand, refusals by name, nothing left behind."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from splitformer.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SplitformerError,
)
from splitformer.v1 import encoder_service_pb2 as pb
from splitformer_client import Client, connect
from tests.conftest import Services, nothing_is_held
from tests.support.hearing import PCM, answers, become_true, raised, release, request, seek, talking
from tests.support.servers import ServerThread
from tests.support.sounds import RATE, file_of, sound


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


def test_silent_and_surplus_streams(whisper_folder: Path, servers: ServerThread) -> None:
    encoder = servers.start_encoder(whisper_folder, max_audio_streams=1, audio_idle_seconds=0.3)

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


def test_an_hour_is_heard_in_the_room_of_a_few_windows(speech: Client, hearing: Services) -> None:
    """Of an hour of FLAC only what the windows need is decoded at a time; here the last second."""
    data = file_of(np.concatenate([np.zeros(3599 * RATE, np.float32), sound(1)]), "FLAC")
    header = request(header=pb.AudioHeader(encoding=pb.AUDIO_ENCODING_FLAC))
    chunks = [request(chunk=data[i : i + 100_000]) for i in range(0, len(data), 100_000)]
    window = answers(hearing.encoder, header, seek(3599), *chunks)[-1].window
    assert (window.start_seconds, window.duration_seconds, window.last) == (3599.0, 1.0, True)
    release(hearing.encoder, window)
