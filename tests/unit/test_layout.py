"""Which cores each service gets, and what the system makes of it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from encoder_service.settings import EncoderSettings
from splitformer.errors import ConfigurationError
from splitformer.serving.layout import Layout, Place, cores_of, pin_engine

ALLOWED = sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cores", "encoder", "decoder"),
    [
        ([3], (), ()),
        ([0, 1], (1,), (0,)),
        ([4, 5, 6], (6,), (4, 5)),
        (range(8), (4, 5, 6, 7), (0, 1, 2, 3)),
    ],
)
def test_cores_are_divided_and_none_is_shared(
    cores: list[int], encoder: tuple[int, ...], decoder: tuple[int, ...]
) -> None:
    layout = Layout.default(cores)
    assert (layout.encoder.engine_cores, layout.decoder.engine_cores) == (encoder, decoder)
    for place in (layout.encoder, layout.decoder):
        assert place.threads == max(1, len(place.engine_cores))
    assert (layout.encoder.cores, layout.decoder.cores) == (encoder, ())
    assert layout.encoder.nice > layout.decoder.nice == 0
    assert layout.decoder.policy == "usual"
    assert layout.encoder.policy == ("idle" if encoder else "usual"), "it needs some of a core"


def test_a_layout_says_itself_in_one_line() -> None:
    encoder = Place((2, 3), threads=2, nice=5, policy="idle")
    layout = Layout(encoder, Place(engine_cores=(0, 1)))
    assert layout.line == (
        "layout: encoder cores 2,3, threads 2, nice 5, policy idle;"
        " decoder all cores, engine cores 0,1, threads 1, nice 0"
    )


def test_what_the_environment_settles_is_not_said_again() -> None:
    place = Place((2, 3), (3,), 2, 5)
    cores = ["--cores", "2,3", "--engine-cores", "3"]
    rest = ["--threads", "2", "--nice", "5", "--policy", "usual"]
    assert place.flags("X_", {}) == [*cores, *rest]
    environment = {"X_CORES": "1", "X_ENGINE_CORES": "", "X_NICE": "", "X_POLICY": "idle"}
    assert place.flags("X_", environment) == ["--threads", "2"]


def test_lists_of_cores_are_read() -> None:
    first = ALLOWED[0]
    assert cores_of("") == frozenset()
    assert cores_of(f"{first},{first}-{first}") == {first}


@pytest.mark.parametrize("text", ["x", "-1", "1-", "0;1", "0-", "999999"])
def test_lists_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^cores: .*got '{text}'"):
        EncoderSettings(cores=text)
    with pytest.raises(ConfigurationError, match=f"engine_cores: .*got '{text}'"):
        EncoderSettings(engine_cores=text)


def test_a_niceness_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nice"):
        EncoderSettings(nice=20)


def test_the_threads_of_an_engine_get_a_core_each() -> None:
    placed = []
    for cores, threads in (((), 1), (ALLOWED, len(ALLOWED)), (ALLOWED, 1)):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(pin_engine, cores, threads).result()
            placed.append(thread.submit(os.sched_getaffinity, 0).result())
    assert placed == [set(ALLOWED), {ALLOWED[0]}, set(ALLOWED)]
    assert os.sched_getaffinity(0) == set(ALLOWED)
