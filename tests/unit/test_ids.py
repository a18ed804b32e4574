"""Ids are 128 bits, hexadecimal, and never the same, beyond one draw from the system too."""

from __future__ import annotations

from itertools import islice

from splitformer.serving.ids import fresh_ids


def test_ids_are_all_different() -> None:
    ids = [*islice(fresh_ids(), 1000), *islice(fresh_ids(), 1000)]
    assert len(set(ids)) == len(ids)
    assert {len(each) for each in ids} == {32}
    assert all(bytes.fromhex(each) for each in ids)
