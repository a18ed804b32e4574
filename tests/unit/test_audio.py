"""Audio on its way in: bytes of any kind, in pieces of any size, become the same windows."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import soxr

from splitformer.errors import (
    ConfigurationError,
    InvalidArgumentError,
    ResourceExhaustedError,
    SplitformerError,
)
from splitformer.model.audio import feed as feeding
from splitformer.model.audio.features import LogMel, Samples
from splitformer.model.audio.sound import Form
from splitformer.model.audio.track import Track, Window
from tests.support.sounds import RATE, file_of, read, sound

SECOND = RATE


class Listener:
    """A track and who waits for its windows."""

    def __init__(self, form: Form, window: int = SECOND, rate: int = RATE) -> None:
        self._changed = threading.Event()
        self.track = Track(form, rate, window, self._changed.set)

    def window(self, start: int = 0) -> Window:
        """Wait for a window."""
        self.track.seek(start)
        while (window := self.track.window()) is None:
            self._changed.wait(10)
            self._changed.clear()
        return window

    def starve(self) -> None:
        """Wait until everything that was fed is decoded."""
        while not self.track.starved:
            self._changed.wait(10)
            self._changed.clear()


@contextmanager
def listening(form: Form, window: int = SECOND, rate: int = RATE) -> Iterator[Listener]:
    listener = Listener(form, window, rate)
    try:
        yield listener
    finally:
        listener.track.close()
    assert threading.active_count() < 20


def all_windows(data: bytes, form: Form, piece: int, window: int = SECOND) -> Samples:
    """Everything, window by window, fed in pieces whenever the track asks for more."""
    rest = [data[i : i + piece] for i in range(0, len(data), piece)][::-1]
    parts, start = [], 0
    with listening(form, window) as listener:
        track = listener.track
        while True:
            track.seek(start)
            while (got := track.window()) is None:
                if not track.starved:
                    listener._changed.wait(0.01)
                elif rest:
                    track.feed(rest.pop())
                else:
                    track.end()
            parts.append(got.samples)
            if got.last:
                return np.concatenate(parts)
            start += window


KINDS = [
    (Form("wav"), "WAV", "PCM_16"),
    (Form("wav"), "WAV", "PCM_24"),
    (Form("wav"), "WAV", "FLOAT"),
    (Form("wav"), "WAVEX", "PCM_32"),
    (Form("flac"), "FLAC", "PCM_16"),
    (Form("flac"), "FLAC", "PCM_24"),
]


@pytest.mark.parametrize(("form", "kind", "subtype"), KINDS)
@pytest.mark.parametrize("piece", [777, 50_000, 10**6])
def test_files_in_pieces_are_what_the_library_reads_at_once(
    form: Form, kind: str, subtype: str, piece: int
) -> None:
    data = file_of(sound(3.3), kind, subtype)
    assert np.array_equal(all_windows(data, form, piece), read(data))


@pytest.mark.parametrize("piece", [999, 10**6])
def test_raw_samples(piece: int) -> None:
    samples = sound(2.2)
    floats = all_windows(samples.astype("<f4").tobytes(), Form("pcm_f32le", RATE, 1), piece)
    assert np.array_equal(floats, samples)
    whole = np.round(samples * 32767).astype("<i2")
    shorts = all_windows(whole.tobytes(), Form("pcm_s16le", RATE, 1), piece)
    assert np.array_equal(shorts, whole.astype(np.float32) / 32768)


def test_two_channels_are_mixed_and_other_rates_resampled() -> None:
    left, right = sound(2, 1, 44100), sound(2, 2, 44100)
    data = file_of(np.stack([left, right], axis=1), "WAV", "FLOAT", 44100)
    mixed = (left + right) / 2
    expected = soxr.resample(mixed, 44100, RATE)
    assert np.allclose(all_windows(data, Form("wav"), 4096), expected, atol=1e-6)


def test_windows_of_any_start_are_cut_out_of_the_whole_and_the_last_is_known() -> None:
    samples = sound(2.5)
    with listening(Form("pcm_f32le", RATE, 1)) as listener:
        listener.track.feed(samples.tobytes()[:80_000])  # 1.25 s
        first = listener.window(0)
        assert (first.start, first.last) == (0, False)
        assert np.array_equal(first.samples, samples[:SECOND])
        listener.track.feed(samples.tobytes()[80_000:])
        listener.track.end()
        again, second = listener.window(0), listener.window(SECOND + 123)
        assert np.array_equal(again.samples, first.samples)
        assert np.array_equal(second.samples, samples[SECOND + 123 : 2 * SECOND + 123])
        assert not second.last
        third = listener.window(2 * SECOND)
        assert third.last
        assert len(third.samples) == SECOND // 2


def test_a_window_that_ends_with_the_audio_is_the_last() -> None:
    with listening(Form("pcm_f32le", RATE, 1)) as listener:
        listener.track.feed(sound(1).tobytes())
        listener.starve()
        assert listener.track.window() is None  # something may follow
        listener.track.end()
        assert listener.window().last


def test_a_jump_ahead_leaves_out_what_lies_between() -> None:
    samples = sound(4)
    with listening(Form("pcm_f32le", RATE, 1)) as listener:
        listener.track.seek(3 * SECOND)
        listener.track.feed(samples.tobytes())
        listener.track.end()
        assert np.array_equal(listener.window(3 * SECOND).samples, samples[3 * SECOND :])


def test_memory_is_bounded_however_long_the_audio_is() -> None:
    """An hour of silence: FLAC makes a few hundred kB of it, and no more than a window is kept."""
    data = file_of(np.zeros(3600 * RATE, np.float32), "FLAC")
    with listening(Form("flac")) as listener:
        track = listener.track
        for i in range(0, len(data), 100_000):
            track.feed(data[i : i + 100_000])
        track.end()
        assert not listener.window().last
        assert track._count <= 2 * SECOND
        assert listener.window(3599 * SECOND).last


def flood(listener: Listener) -> None:
    for _ in range(100):
        listener.track.feed(bytes(100_000))


def listen_through(listener: Listener) -> None:
    for start in range(0, 100 * SECOND, SECOND):
        listener.window(start)


def test_who_sends_too_far_ahead_is_refused() -> None:
    with listening(Form("pcm_s16le", RATE, 1)) as listener:
        with pytest.raises(ResourceExhaustedError, match=r"chunk: at most \d+ bytes") as caught:
            flood(listener)
        assert caught.value.reason == "AUDIO_TOO_FAR_AHEAD"
        assert listener.track._feed.total <= feeding.AHEAD_BYTES + 4 * SECOND


def broken(data: bytes, form: Form, end: bool = True) -> InvalidArgumentError:
    with listening(form) as listener:
        listener.track.feed(data)
        if end:
            listener.track.end()
        with pytest.raises(InvalidArgumentError) as caught:
            listen_through(listener)
    return caught.value


WAV, FLAC = file_of(sound(3)), file_of(sound(3), "FLAC")
BAD: list[tuple[bytes, Form, str, str]] = [
    (b"", Form("wav"), "BAD_AUDIO", "must be a sound WAV file"),
    (b"hello" * 9999, Form("wav"), "BAD_AUDIO", "must be a sound WAV file"),
    (WAV[:30], Form("wav"), "BAD_AUDIO", "must be a sound WAV file"),
    (WAV[:5] + b"wwwwww" + WAV[11:], Form("wav"), "BAD_AUDIO", "Format not recognised"),
    (FLAC, Form("wav"), "BAD_AUDIO", "is a FLAC file"),
    (WAV, Form("flac"), "BAD_AUDIO", "is a WAV file"),
    (file_of(sound(1), "OGG", "VORBIS"), Form("wav"), "BAD_AUDIO", "is a OGG file"),
    (WAV[:-10], Form("wav"), "AUDIO_TRUNCATED", "must be complete, got '47995 of 48000 samples'"),
    (FLAC[: len(FLAC) // 2], Form("flac"), "AUDIO_TRUNCATED", "of 48000 samples"),
    (FLAC[:40], Form("flac"), "BAD_AUDIO", "must be a sound FLAC file"),
    (
        FLAC[:20_000] + b"\xff" * 300 + FLAC[20_300:],
        Form("flac"),
        "BAD_AUDIO",
        "must be a sound FLAC file",
    ),
    (bytes(9), Form("pcm_s16le", RATE, 1), "AUDIO_TRUNCATED", "9 bytes, no multiple of 2"),
    (b"", Form("pcm_s16le", RATE, 1), "EMPTY_AUDIO", "must hold samples, got 0"),
    (file_of(sound(0)), Form("wav"), "EMPTY_AUDIO", "must hold samples, got 0"),
    (
        np.full(9, np.nan, "<f4").tobytes(),
        Form("pcm_f32le", RATE, 1),
        "BAD_AUDIO",
        "holds infinities or NaNs",
    ),
    (
        file_of(np.zeros((99, 8), np.float32)),
        Form("wav"),
        "BAD_CHANNELS",
        "audio.channels: must be 1 to 2, got 8",
    ),
    (
        file_of(sound(1), rate=1000),
        Form("wav"),
        "BAD_SAMPLE_RATE",
        "audio.sample_rate: must be 4000 to 192000 Hz, got 1000",
    ),
]


@pytest.mark.parametrize(("data", "form", "reason", "message"), BAD)
def test_bad_audio_is_refused_by_name(data: bytes, form: Form, reason: str, message: str) -> None:
    error = broken(data, form)
    assert error.reason == reason
    assert message in error.message


def test_a_header_written_before_the_length_was_known_is_no_promise() -> None:
    data = bytearray(file_of(sound(2)))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert np.array_equal(all_windows(bytes(data), Form("wav"), 9999), read(file_of(sound(2))))


@pytest.mark.parametrize(
    ("encoding", "rate", "channels", "message"),
    [
        ("pcm_s16le", 0, 1, "header.sample_rate: must be 4000 to 192000 Hz, got 0"),
        ("pcm_s16le", 16000, 0, "header.channels: must be 1 to 2, got 0"),
        ("pcm_f32le", 16000, 8, "header.channels: must be 1 to 2, got 8"),
        ("wav", 16000, 0, "header.sample_rate: must be 0: a WAV file says it itself, got 16000"),
        ("flac", 0, 2, "header.channels: must be 0: a FLAC file says it itself, got 2"),
    ],
)
def test_bad_forms(encoding: str, rate: int, channels: int, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Form(encoding, rate, channels)  # type: ignore[arg-type]


def test_seeks_lie_within_the_audio_and_do_not_go_back() -> None:
    with listening(Form("pcm_f32le", RATE, 1)) as listener:
        listener.track.feed(sound(2).tobytes())
        listener.track.end()
        listener.window(SECOND)
        with pytest.raises(InvalidArgumentError, match=r"seek.start_seconds: must be at least 1"):
            listener.track.seek(SECOND - 1)
        with pytest.raises(SplitformerError, match="must lie within the audio, which ends at 2"):
            listener.window(2 * SECOND)


def test_closing_stops_a_decoder_that_waits_for_bytes_or_for_room() -> None:
    for data in (b"", bytes(4 * SECOND)):
        listener = Listener(Form("pcm_s16le", RATE, 1))
        listener.track.feed(data)
        listener.track.close()
        assert not listener.track._thread.is_alive()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"feature_size": 0}, "features.bins: must be a positive integer, got 0"),
        ({"hop_length": 161}, "features.hop: must divide a window"),
        ({"dither": 0.1}, "dither: must be 0.0, got 0.1"),
        ({"do_normalize": True}, "do_normalize: must be False, got True"),
    ],
)
def test_bad_preprocessors(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LogMel.from_preprocessor(values)


def test_features_of_the_published_preprocessor() -> None:
    features = LogMel.from_preprocessor({"feature_size": 128, "chunk_length": 30})
    assert dataclasses.astuple(features) == (128, 16000, 30, 160, 400)
    assert features.frames == 3000
