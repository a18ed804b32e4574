"""Continuations of hypotheses, ranked in the library and one by one."""

from __future__ import annotations

import random
from array import array

from splitformer.native import continuations
from tests.support.native import needs_native


@needs_native
def test_the_library_ranks_as_sorting_does() -> None:
    chance = random.Random(0)
    for _ in range(300):
        count, room, first = chance.randint(1, 6), chance.randint(1, 12), chance.randint(0, 3)
        totals = [chance.choice((-1.5, -1.0, chance.uniform(-9, 0))) for _ in range(count)]
        sums = array(
            "f", [chance.choice((1.0, chance.uniform(0, 3))) for _ in range(first + count)]
        )
        pairs, expected = array("q", [7] * chance.randint(0, 5)), []
        begin = len(pairs)
        for i, total in enumerate(totals):
            held = chance.randint(0, room)
            logits = sorted((round(chance.uniform(-3, 3), 1) for _ in range(held)), reverse=True)
            for place in range(room):
                logit = array("f", [logits[place] if place < held else 0.0])
                token = chance.randrange(900) if place < held else -1
                pairs.frombytes(logit.tobytes() + array("i", [token]).tobytes())
                own = logit[0] - sums[first + i]
                if place < held:
                    expected.append((-total - min(own, 0.0), i, place, token, own))
        most = chance.randint(1, 14)
        found = continuations(pairs, begin, room, sums, first, totals, most)
        assert found == [
            (cost, i, token, own) for cost, i, _, token, own in sorted(expected)[:most]
        ]
