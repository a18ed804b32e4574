"""Buffers that others may map: nobody changes them, and none is left open."""

from __future__ import annotations

import mmap
import os
import resource
from collections.abc import Callable

import pytest

from encoder_service.segments import Room, Segments
from splitformer.serving import sharing

needs_sharing = pytest.mark.skipif(
    not sharing.host_identity(), reason="no sealed files in memory here"
)
DATA = bytes(range(256)) * 40


def filling(data: bytes) -> Callable[[Room], None]:
    def fill(room: Room) -> None:
        room[:] = data

    return fill


@pytest.mark.parametrize("share", [True, False])
def test_a_segment_holds_what_was_written(share: bool) -> None:
    segment = Segments(share).make(len(DATA), filling(DATA))
    assert len(segment) == len(DATA)
    assert bytes(segment.data) == DATA
    assert share or segment.fd is None


@needs_sharing
def test_a_shared_segment_cannot_be_changed_or_cut() -> None:
    segment = Segments(share=True).make(len(DATA), filling(DATA))
    assert segment.fd is not None
    with pytest.raises(PermissionError):
        mmap.mmap(segment.fd, len(DATA))
    for size in (1, 2 * len(DATA)):
        with pytest.raises(PermissionError):
            os.truncate(segment.fd, size)
    with pytest.raises(PermissionError):
        os.write(segment.fd, b"x")


@needs_sharing
def test_what_is_mapped_outlives_the_segment_and_its_file_is_closed() -> None:
    segment = Segments(share=True).make(len(DATA), filling(DATA))
    fd, mapped = segment.fd, segment.data
    assert fd is not None
    del segment
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    assert bytes(mapped) == DATA


@needs_sharing
def test_one_that_cannot_be_filled_leaves_no_file() -> None:
    def fail(room: Room) -> None:
        raise RuntimeError

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError):
        Segments(share=True).make(len(DATA), fail)
    assert len(os.listdir("/proc/self/fd")) == before


def test_beyond_the_files_that_may_be_open_it_is_ordinary_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (4, 4))
    segment = Segments(share=True).make(len(DATA), filling(DATA))
    assert segment.fd is None
    assert segment.data == DATA
