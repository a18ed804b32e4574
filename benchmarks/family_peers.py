"""CTranslate2 and Transformers with published models."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import ctranslate2
import numpy as np
import torch
from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq, GenerationMixin

from benchmarks.contest import LAYOUTS, STEPS, THREADS, WARM
from benchmarks.family_models import MOST_STREAMS, audio, sources
from benchmarks.measuring import Contestant, fastest
from benchmarks.peers.ctranslate2_model import token_names
from benchmarks.whisper_model import START, marks

TRIAL = 4
"""Target tokens of a trial of thread layouts."""


class CTranslate2(Protocol):
    """CTranslate2 in int8, in some layout of threads."""

    def run(self, batch: int, count: int) -> object:
        """Decode `count` tokens of every target, encoding included."""


class Text:
    """CTranslate2 with a model of text; see the protocol."""

    def __init__(self, folder: Path, size: int, inter: int) -> None:
        self._inter = inter
        self._translator = ctranslate2.Translator(str(folder), **_layout(inter))
        names = token_names(size)
        self._sources = [[names[i] for i in row] for row in sources(size - 1)]

    def run(self, batch: int, count: int) -> object:
        """Decode `count` tokens of every target, encoding included."""
        return self._translator.translate_batch(
            self._sources[:batch],
            max_batch_size=-(-batch // self._inter),
            beam_size=1,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
        )


class Audio:
    """CTranslate2 with a model that hears; see the protocol."""

    def __init__(self, folder: Path, inter: int) -> None:
        self._inter = inter
        self._model = ctranslate2.models.Whisper(str(folder), **_layout(inter))
        features = np.stack([audio().T] * MOST_STREAMS)  # (B, bins, frames)
        self._features = np.ascontiguousarray(features)

    def run(self, batch: int, count: int) -> object:
        """Decode `count` tokens of every target, encoding included."""
        size = -(-batch // self._inter)
        parts = [self._begin(first, size, count) for first in range(0, batch, size)]
        return [result.result() for part in parts for result in part]

    def _begin(self, first: int, size: int, count: int) -> Any:
        return self._model.generate(
            ctranslate2.StorageView.from_array(self._features[first : first + size]),
            [list(START)] * size,
            beam_size=1,
            # It takes half of it, or what the start leaves, whichever is less.
            max_length=max(2 * count, count + len(START)) if count > 3 else count + len(START),
            suppress_blank=False,
            suppress_tokens=[marks()["<|endoftext|>"]],
            asynchronous=True,
        )


def fastest_layout(make: Callable[[int], CTranslate2], batch: int) -> CTranslate2:
    """Return CTranslate2 in the layout of threads that is fastest; one stream has no choice."""
    peers = {str(inter): make(inter) for inter, _ in LAYOUTS if inter <= batch}
    if len(peers) == 1:
        return peers["1"]
    tries = {name: partial(peer.run, batch, TRIAL) for name, peer in peers.items()}
    return peers[fastest(tries)]


def turns(peer: CTranslate2, batch: int, count: int, warm: int) -> Contestant:
    """Return CTranslate2's turn; `warm` sequences warm it up."""
    run, prepare = partial(peer.run, batch, count), partial(peer.run, warm, WARM)
    return Contestant.whole(run, prepare, spins=True)


def transformers(folder: Path, hears: bool, batch: int) -> Contestant:
    """Transformers in float32."""
    kind: Any = AutoModelForSpeechSeq2Seq if hears else AutoModelForSeq2SeqLM
    model = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    if hears:
        features = torch.from_numpy(np.stack([audio().T] * batch))  # (B, bins, frames)
        given: dict[str, Any] = {"input_features": features}
    else:
        given = {"input_ids": torch.tensor(sources(model.config.vocab_size)[:batch])}

    def generate(count: int) -> object:
        return GenerationMixin.generate(
            model,
            **given,
            do_sample=False,
            num_beams=1,
            max_new_tokens=count,
            min_new_tokens=count,
        )

    return Contestant.whole(lambda: generate(STEPS), lambda: generate(1), spins=True)


def _layout(inter: int) -> dict[str, Any]:
    return {
        "compute_type": "int8",
        "inter_threads": inter,
        "intra_threads": THREADS // inter,
    }
