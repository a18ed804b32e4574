"""All contestants of one process, over the same weights and the same random sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ctranslate2
import numpy as np
import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.measuring import Contestant, fastest
from benchmarks.peers import huggingface_model
from benchmarks.peers.ctranslate2_model import COMPUTE_TYPES, convert, token_names
from benchmarks.peers.fbgemm import Fbgemm
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder

SOURCE_TOKENS, STEPS, THREADS = 24, 32, 2
LAYOUTS = ((1, 2), (2, 1))
"""CTranslate2's (inter_threads, intra_threads); the faster one takes part."""

WARM = 2
"""Steps of a run that only warms up."""

Run = Callable[[], object]


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

    def steps(self, batch: int) -> Contestant:
        """Our loop over memories that have been encoded; projecting them is included."""
        memories = self.memories[:batch]

        def run(count: int) -> object:
            return self.loop([self.native.begin(memory) for memory in memories], count)

        return Contestant(lambda: run(STEPS), lambda: run(WARM))

    def begin(self, batch: int) -> Contestant:
        """What `steps` does before its first step."""
        memories = self.memories[:batch]

        def run() -> object:
            return [self.native.begin(memory) for memory in memories]

        return Contestant(run, lambda: None)  # `steps` has just warmed this up

    def floor(self, batch: int) -> Contestant:
        """The matrix products of as many steps, alone."""
        plan = self.native.plan
        return Contestant(lambda: plan.products(batch, STEPS), lambda: plan.products(batch, WARM))

    def fbgemm(self, batch: int) -> Contestant:
        """The same products by FBGEMM."""
        products = self._fbgemm.products
        return Contestant(lambda: products(batch, STEPS), lambda: products(batch, WARM))

    def request(self, batch: int) -> Contestant:
        """Everything: encode, project, loop."""
        sources = self.source[:batch].tolist()

        def run(count: int) -> object:
            memories = self.encoder.encode(sources)
            states = [self.native.begin(torch.from_numpy(memory)) for memory in memories]
            return self.loop(states, count)

        return Contestant(lambda: run(STEPS), lambda: run(WARM))

    def loop(self, states: list[Any], count: int) -> list[list[int]]:
        """Take `count` steps."""
        tokens = [[shapes.START]] * len(states)
        produced = []
        for _ in range(count):
            advanced = self.native.advance(
                tokens, states, never=(shapes.EOS,), log_probabilities=False
            )
            tokens = [[token] for token in advanced.ids]
            produced.append(advanced.ids)
        return produced

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

    def translate(self, peer: Peer, batch: int, count: int) -> Contestant:
        """CTranslate2: `count` tokens of every target, encoding included."""
        return Contestant(
            self._translation(peer, batch, count), self._translation(peer, batch, WARM)
        )

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

    def generate(self, batch: int, count: int) -> Contestant:
        """Hugging Face, float32: `count` tokens of every target, encoding included."""
        source, model = self.source[:batch], self.huggingface

        def run(tokens: int) -> object:
            return model.generate(
                input_ids=source,
                do_sample=False,
                num_beams=1,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
            )

        return Contestant(lambda: run(count), lambda: run(WARM))


def _translator(model: Any, folder: Path, cache: Path, precision: str, inter: int) -> Any:
    converted = convert(lambda: model, cache / f"{folder.name}-ct2-{precision}", precision)
    return ctranslate2.Translator(
        str(converted),
        compute_type=COMPUTE_TYPES[precision],
        inter_threads=inter,
        intra_threads=THREADS // inter,
    )
