"""Drawing a token from the likeliest ones, in the library."""

from __future__ import annotations

import math
from array import array
from typing import NamedTuple

from splitformer.native.binding import library


class Draw(NamedTuple):
    """How to draw a token, and where; what is not given is not a number. As `Draw` in src/draw.h.

    Attributes:
        temperature: Above 0.
        top_k: Only the k likeliest and those equal to the last of them.
        top_p: Of these, only the fewest likeliest whose weights reach that part of all of theirs.
        min_p: Of these, only those at least that many times as likely as the likeliest.
        point: How far to go through the weights, in the order of ids; in [0, 1). A step that is not
            given any takes the one that belongs to the seed and the position.
        total: Weight of all tokens, relative to the likeliest, if it matters. Any number asks a
            step to add it up.
        among: Of how many of the likeliest ids a step draws one; 0: of all.
    """

    temperature: float
    top_k: float
    top_p: float
    min_p: float
    point: float = math.nan
    total: float = math.nan
    among: int = 0


def drawn_place(draw: Draw, values: array[float], ids: array[int]) -> int:
    """Draw one of the likeliest tokens.

    Args:
        draw: How.
        values: Logits, likeliest first; doubles.
        ids: Their ids, the smallest of equally likely ones first; int32.

    Returns:
        A place among them; -1 where tokens that are not among them may matter.

    Raises:
        NativeUnavailableError: The library cannot be used here.
    """
    how = array("d", draw)
    addresses = [each.buffer_info()[0] for each in (how, values, ids)]
    return int(library().draw(*addresses, len(ids)))
