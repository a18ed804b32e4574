"""CTranslate2's offline batches: what it can do with neither server nor clients."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ctranslate2
import numpy as np

from benchmarks.contest import LAYOUTS
from benchmarks.load import SOURCE_TOKENS, TARGET_TOKENS
from benchmarks.measuring import come_to_rest, fastest
from benchmarks.peers.ctranslate2_model import token_names


class Offline:
    """The peer's batches of as many sources as there are streams, in the faster of two layouts.

    Attributes:
        streams: Sources in a batch.
        rates: Target tokens per second, turn by turn.
    """

    def __init__(self, peer: Path, vocabulary: int, streams: int) -> None:
        names = token_names(vocabulary)
        numbers = np.random.default_rng(0).integers(4, vocabulary, (streams, SOURCE_TOKENS))
        sources = [[names[i] for i in row] for row in numbers]
        runs = {
            str(inter): _translate(
                ctranslate2.Translator(
                    str(peer), compute_type="int8", inter_threads=inter, intra_threads=intra
                ),
                sources,
                inter,
            )
            for inter, intra in LAYOUTS
        }
        self.streams, self.rates = streams, list[float]()
        self._run = runs[fastest({name: partial(run, 5) for name, run in runs.items()})]

    def take_turn(self, seconds: float) -> None:
        """Translate batch after batch for so long, and remember the rate; warms up before."""
        self._run(2)
        began, batches = time.perf_counter(), 0
        while (taken := time.perf_counter() - began) < seconds:
            self._run(TARGET_TOKENS)
            batches += 1
        self.rates.append(batches * self.streams * TARGET_TOKENS / taken)
        come_to_rest()


def _translate(translator: object, sources: list[list[str]], inter: int) -> Callable[[int], object]:
    def run(count: int) -> object:
        return translator.translate_batch(  # type: ignore[attr-defined]
            sources,
            max_batch_size=-(-len(sources) // inter),
            beam_size=1,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
        )

    return run
