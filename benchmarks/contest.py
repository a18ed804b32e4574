"""All contestants of one process, over the same weights and the same random sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.measuring import Contestant, Run, fastest
from benchmarks.peers import huggingface_model
from benchmarks.peers.ctranslate2_model import COMPUTE_TYPES, convert, token_names
from benchmarks.peers.fbgemm import Fbgemm
from splitformer.model.cache import DecoderState
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder

SOURCE_TOKENS, STEPS, THREADS = 24, 32, 2
LAYOUTS = ((1, 2), (2, 1))
"""CTranslate2's (inter_threads, intra_threads); the faster one takes part."""

WARM = 2
"""Steps of a run that only warms up."""

PIECES, PIECE = 8, 4
"""A turn of `STEPS` in pieces of so many steps."""

assert PIECES * PIECE == STEPS


@dataclass(frozen=True, slots=True)
class Peer:
    """CTranslate2 in one precision and one thread layout."""

    precision: str
    inter: int
    intra: int
    translator: Any

    @property
    def name(self) -> str:
        """What its samples are called."""
        return f"ctranslate2-{self.precision}-{self.inter}x{self.intra}"


class Loop:
    """Our steps, one after the other.

    Args:
        decoder: Takes them.
        states: Of sequences that have just begun.
        log_probabilities: Compute them.
    """

    def __init__(
        self, decoder: NativeDecoder, states: list[DecoderState], log_probabilities: bool = False
    ) -> None:
        self._decoder = decoder
        self._states = states
        self._log_probabilities = log_probabilities
        self._tokens = [[shapes.START]] * len(states)

    def take(self, count: int) -> None:
        """Take `count` steps."""
        for _ in range(count):
            advanced = self._decoder.advance(
                self._tokens,
                self._states,
                never=(shapes.EOS,),
                log_probabilities=self._log_probabilities,
            )
            self._tokens = [[token] for token in advanced.ids]


class Contest:
    """Us and the peers with the weights of one checkpoint.

    Args:
        folder: The checkpoint.
        cache: Where converted models are kept.
        precisions: Of CTranslate2: "int8", "fp32".
        most: Longest batch that will be asked for.
    """

    def __init__(
        self, folder: Path, cache: Path, precisions: Sequence[str] = ("int8",), most: int = 64
    ) -> None:
        torch.set_num_threads(THREADS)
        self.model = Checkpoint(folder).load()
        self.encoder = NativeEncoder(self.model.encoder, "int8", THREADS)
        self.native = NativeDecoder(self.model.decoder, "int8", THREADS)
        config = self.model.config
        self.peers = [
            Peer(precision, inter, intra, _translator(self.model, folder, cache, precision, inter))
            for precision in precisions
            for inter, intra in LAYOUTS
        ]
        torch.set_num_threads(THREADS)  # CTranslate2 has set OpenMP's, which are torch's too
        self._chosen: dict[int, list[Peer]] = {}
        self.names = token_names(config.target_vocabulary_size)
        numbers = np.random.default_rng(0)
        sources = numbers.integers(8, config.source_vocabulary_size, (most, SOURCE_TOKENS))
        self.source = torch.from_numpy(sources)

    def close(self) -> None:
        """Let the packed weights go."""
        self.encoder.close()
        self.native.close()

    @cached_property
    def _fbgemm(self) -> Fbgemm:
        return Fbgemm(self.model.decoder)

    @cached_property
    def memories(self) -> list[Tensor]:
        """The sources, encoded: (S, D) each."""
        return [torch.from_numpy(memory) for memory in self.encoder.encode(self.source.tolist())]

    def exact_memories(self, batch: int) -> Tensor:
        """Encode the first sources in float32: (batch, S, D)."""
        lengths = torch.full((batch,), SOURCE_TOKENS)
        with torch.inference_mode():
            return self.model.encode(self.source[:batch], lengths)

    def steps(self, batch: int, log_probabilities: bool = False) -> Contestant:
        """Our loop over memories that have been projected."""

        def begin() -> list[Run]:
            self._begun(min(batch, 8), log_probabilities).take(WARM)
            loop = self._begun(batch, log_probabilities)
            return [partial(loop.take, PIECE)] * PIECES

        return Contestant(begin)

    def floor(self, batch: int) -> Contestant:
        """The matrix products of as many steps, alone: by our kernels or by FBGEMM."""
        ours, fbgemm = self.native.plan.products, self._fbgemm.products
        trial = {"ours": partial(ours, batch, PIECE), "fbgemm": partial(fbgemm, batch, PIECE)}
        chosen = fastest(trial)
        products = ours if chosen == "ours" else fbgemm

        def begin() -> list[Run]:
            products(batch, WARM)
            return [partial(products, batch, PIECE)] * PIECES

        return Contestant(begin, spins=chosen == "fbgemm")

    def request(self, batch: int) -> Contestant:
        """Everything: encode, project, loop."""
        sources = self.source[:batch].tolist()

        def run(count: int) -> None:
            memories = self.encoder.encode(sources)
            states = [self.native.begin(torch.from_numpy(memory)) for memory in memories]
            Loop(self.native, states).take(count)

        return Contestant.whole(lambda: run(STEPS), lambda: run(WARM))

    def _begun(self, batch: int, log_probabilities: bool) -> Loop:
        states = [self.native.begin(memory) for memory in self.memories[:batch]]
        return Loop(self.native, states, log_probabilities)

    def fastest_peers(self, batch: int) -> list[Peer]:
        """Return for each precision the peer whose thread layout is fastest at a batch size.

        Beyond 8 sequences both threads are busy either way, and the choice is that of 8.
        """
        batch = min(batch, 8)
        if batch not in self._chosen:
            self._chosen[batch] = self._try_layouts(batch)
        return self._chosen[batch]

    def _try_layouts(self, batch: int) -> list[Peer]:
        chosen = []
        for precision in dict.fromkeys(peer.precision for peer in self.peers):
            peers = {peer.name: peer for peer in self.peers if peer.precision == precision}
            tries = {name: self._translation(peer, batch, 9) for name, peer in peers.items()}
            chosen.append(peers[fastest(tries)])
        return chosen

    def translate(self, peer: Peer, batch: int, *counts: int) -> Contestant:
        """CTranslate2: a piece for each count of tokens of every target, encoding included."""
        warm, *pieces = (self._translation(peer, batch, count) for count in (WARM, *counts))

        def begin() -> list[Run]:
            warm()
            return pieces

        return Contestant(begin, spins=True)

    def _translation(self, peer: Peer, batch: int, count: int) -> Run:
        sources = [[self.names[i] for i in row] for row in self.source[:batch].tolist()]
        return lambda: peer.translator.translate_batch(
            sources,
            max_batch_size=-(-batch // peer.inter),
            beam_size=1,
            max_decoding_length=count,
            min_decoding_length=count,
            suppress_sequences=[["</s>"]],
        )

    @cached_property
    def huggingface(self) -> Any:
        """Our weights as Hugging Face's Marian."""
        return huggingface_model.convert(self.model, shapes.START, shapes.EOS, shapes.PAD)

    def generate(self, batch: int, *counts: int) -> Contestant:
        """Hugging Face, float32; as `translate`."""
        source, model = self.source[:batch], self.huggingface

        def run(tokens: int) -> object:
            return model.generate(
                input_ids=source,
                do_sample=False,
                num_beams=1,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
            )

        def begin() -> list[Run]:
            run(WARM)
            return [partial(run, count) for count in counts]

        return Contestant(begin, spins=True)


def _translator(model: Any, folder: Path, cache: Path, precision: str, inter: int) -> Any:
    converted = convert(lambda: model, cache / f"{folder.name}-ct2-{precision}", precision)
    return ctranslate2.Translator(
        str(converted),
        compute_type=COMPUTE_TYPES[precision],
        inter_threads=inter,
        intra_threads=THREADS // inter,
    )
