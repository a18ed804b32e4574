"""Ids that nobody can guess."""

from __future__ import annotations

import os
from collections.abc import Iterator

_ID_BYTES = 16
_IDS_AT_A_TIME = 256


def fresh_ids() -> Iterator[str]:
    """Give ids of 128 random bits each, hexadecimal, without end.

    The system is asked for many at a time: asking gives up Python's lock, and an engine that takes
    it then may keep the event loop waiting.
    """
    while True:
        block = os.urandom(_ID_BYTES * _IDS_AT_A_TIME)
        for i in range(0, len(block), _ID_BYTES):
            yield block[i : i + _ID_BYTES].hex()
