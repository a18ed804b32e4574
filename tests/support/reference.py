"""The same model in this process, without services: what theirs is compared with."""

from __future__ import annotations

from pathlib import Path

import torch

from splitformer import wire
from splitformer.generation import (
    GenerationOptions,
    Glossary,
    Target,
    Vocabulary,
    decoding_for,
    run,
)
from splitformer.model.checkpoint import Checkpoint
from splitformer.serving.arithmetic import Arithmetic
from splitformer.serving.kernels import source_encoder, step_decoder
from splitformer.v1 import tensor_pb2


class Reference:
    """A whole model, its memories rounded to the wire type as an encoder service does."""

    def __init__(self, folder: Path, precision: str = "fp32", kernels: str = "auto") -> None:
        torch.set_num_threads(1)
        self.checkpoint = Checkpoint(folder)
        self.model = self.checkpoint.load()
        arithmetic = Arithmetic(precision, kernels)
        self.encoder = source_encoder(self.checkpoint, arithmetic)
        self.decoder = step_decoder(self.checkpoint, arithmetic)

    @torch.inference_mode()
    def memory(self, text: str) -> torch.Tensor:
        """Return the memory of a text, (S, D)."""
        ids = [piece.id for piece in self.checkpoint.encode_source(text)]
        exact = self.encoder.encode([ids])[0]
        f16 = tensor_pb2.DATA_TYPE_F16
        return torch.from_numpy(wire.unpack(wire.pack(exact, f16), f16, exact.shape))

    @torch.inference_mode()
    def target(
        self, text: str, language: str, prefix: tuple[int, ...] = (), **options: float
    ) -> Target:
        """Generate from a text until the end, `max_new_tokens` or the last position."""
        description = self.checkpoint.description
        start = (*description.languages.starts[language], *prefix)
        detokenizer = self.checkpoint.tokenizer.detokenizer()
        for token in prefix:
            detokenizer.add(token)
        positions = description.architecture.max_positions
        target = Target(start, self.decoder.begin(self.memory(text)), detokenizer, positions)
        target.source, target.source_text = tuple(self.checkpoint.encode_source(text)), text
        chosen = GenerationOptions(**options)  # type: ignore[arg-type]
        most = chosen.max_new_tokens or positions
        size = description.architecture.target_vocabulary_size
        vocabulary = Vocabulary(description.eos_id, description.never_generated, size)
        glossary = Glossary(self.checkpoint.tokenizer, vocabulary)
        chosen = glossary.spelled(chosen)
        wanted = glossary.wanted(chosen, target)
        decoding = decoding_for(target, chosen, most, vocabulary, wanted=wanted)
        run(self.decoder, decoding, vocabulary.never)
        return target
