"""A published family's tiny model twice: in Transformers, and opened by us from the same folder."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch

import splitformer_client
from splitformer.generation import GenerationOptions, Sequential, Target, Vocabulary, run
from splitformer.model import Transformer
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.native_decoder import NativeDecoder
from splitformer.model.native_encoder import NativeEncoder
from splitformer.model.stepping import StepDecoder
from splitformer.model.torch_decoder import TorchDecoder
from splitformer.model.torch_encoder import TorchEncoder
from splitformer_client import EndReason, Translation
from tests.support.checkpoints import SENTENCES
from tests.support.servers import ServerThread

POSITIONS = 40
"""Longest source and decoder input of the tiny models, so that every limit is met."""


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Check that two results differ by rounding only."""
    torch.testing.assert_close(actual, expected, atol=3e-5, rtol=1e-5)


def train_pieces(
    path: Path, size: int, sentences: Sequence[str] = SENTENCES, **options: Any
) -> list[str]:
    """Train a SentencePiece model as the families have them; return its pieces."""
    model = io.BytesIO()
    values: dict[str, Any] = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sentences] * 20),
        model_writer=model,
        vocab_size=size,
        hard_vocab_limit=False,
        minloglevel=2,
        **(values | options),
    )
    path.write_bytes(model.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]


def varied(model: Any, seed: int = 3, scale: float = 4.0) -> Any:
    """Make a random model's targets vary: larger weights, a last norm that turns the echo round."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.dim() > 1 and "embed_positions" not in name:
                tensor.mul_(scale)
            elif name.endswith("bias"):
                tensor.normal_(std=0.1, generator=generator)
        norms = [n for n, _ in model.named_parameters() if n.endswith("norm.weight")]
        model.get_parameter([n for n in norms if "decoder" in n][-1]).neg_()
        for name, tensor in model.named_buffers():
            if name.endswith("final_logits_bias"):
                tensor.normal_(std=0.1, generator=generator)
    return model.eval()


@dataclass(frozen=True)
class Pair:
    """The two.

    Attributes:
        theirs: The model in Transformers.
        folder: Where both were read from.
        checkpoint: The folder, opened by us.
        ours: Both our halves in torch.
    """

    theirs: Any
    folder: Path
    checkpoint: Checkpoint
    ours: Transformer

    @classmethod
    def of(cls, model: Any, folder: Path, **saving: Any) -> Pair:
        """Save a model beside its tokenizer's files, and open the folder."""
        model.save_pretrained(folder, **saving)
        checkpoint = Checkpoint(folder)
        return cls(model, folder, checkpoint, checkpoint.load())

    @torch.inference_mode()
    def check_encoder(self) -> None:
        """Our memories are theirs, by torch in a padded batch and by the native library."""
        size = self.checkpoint.description.architecture.source_vocabulary_size
        source, lengths, mask = padded(size)
        expected = self.theirs.get_encoder()(input_ids=source, attention_mask=mask)
        actual = self.ours.encode(source, lengths)
        rows = [row[:n].tolist() for row, n in zip(source, lengths.tolist(), strict=True)]
        native = NativeEncoder(self.ours.encoder, "fp32", 1).encode(rows)
        for i, length in enumerate(lengths.tolist()):
            memory = expected.last_hidden_state[i, :length]
            close(actual[i, :length], memory)
            close(torch.from_numpy(native[i]), memory)

    @torch.inference_mode()
    def check_logits(self, count: int = 9) -> None:
        """Our logits are theirs, all at once and step by step, by torch and natively."""
        config = self.checkpoint.description.architecture
        source, lengths, mask = padded(config.source_vocabulary_size)
        target = torch.randint(0, config.target_vocabulary_size, (3, count))
        expected = self.theirs(
            input_ids=source, attention_mask=mask, decoder_input_ids=target
        ).logits
        close(self.ours(source, lengths, target), expected)
        memory = self.ours.encode(source, lengths)
        native = NativeDecoder(self.ours.decoder, "fp32", 1)
        for decoder in (self.ours, native):
            states = [decoder.begin(memory[i, :n]) for i, n in enumerate(lengths.tolist())]
            for j in range(count):
                logits = decoder.step([[int(row[j])] for row in target], states)
                close(torch.as_tensor(logits), expected[:, j])

    def decoders(self) -> list[StepDecoder]:
        """Our decoder by torch and natively."""
        return [TorchDecoder(self.ours.decoder), NativeDecoder(self.ours.decoder, "fp32", 1)]

    def source_ids(self, text: str, source: str = "", target: str = "") -> list[int]:
        """Tokenise as the encoder service does."""
        return [piece.id for piece in self.checkpoint.encode_source(text, source, target)]

    @torch.inference_mode()
    def generate(
        self, decoder: StepDecoder, ids: list[int], language: str = "", positions: int = POSITIONS
    ) -> list[int]:
        """Decode greedily in process; return all tokens, start and end among them."""
        description = self.checkpoint.description
        start = description.languages.starts[language]
        memory = torch.from_numpy(TorchEncoder(self.ours.encoder).encode([ids])[0])
        detokenizer = self.checkpoint.tokenizer.detokenizer()
        target = Target(start, decoder.begin(memory), detokenizer, positions)
        vocabulary = Vocabulary(
            description.eos_id,
            description.never_generated,
            description.architecture.target_vocabulary_size,
            description.end_at_limit,
        )
        run(decoder, Sequential(target, GenerationOptions(), 1000, vocabulary), vocabulary.never)
        produced = [token.id for token in target.produced]
        return [*start, *produced, *([target.end.id] if target.end else [])]

    @torch.inference_mode()
    def theirs_generate(
        self, ids: list[int], positions: int = POSITIONS, **options: Any
    ) -> list[int]:
        """Decode greedily in Transformers; the same tokens."""
        output = self.theirs.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            num_beams=1,
            max_length=positions + 1,
            **options,
        )
        return [int(token) for token in output[0]]

    def check_greedy(
        self,
        ids: list[int],
        language: str = "",
        positions: Sequence[int] = (POSITIONS, 7),
        **options: Any,
    ) -> list[int]:
        """Our greedy targets are theirs, up to different limits; return the longest."""
        outputs = []
        for limit, decoder in itertools.product(positions, self.decoders()):
            outputs.append(self.generate(decoder, ids, language, limit))
            assert outputs[-1] == self.theirs_generate(ids, limit, **options)
        return max(outputs, key=len)

    def check_wire(
        self,
        servers: ServerThread,
        requests: Sequence[tuple[str, str, str]],
        expected: Sequence[list[int]],
    ) -> list[Translation]:
        """What both services answer to (text, source, target) are these whole outputs."""
        answers = []
        for kernels in ("torch", "native"):
            settings = {"memory_dtype": "f32", "kernels": kernels}
            encoder = servers.start_encoder(self.folder, **settings)
            decoder = servers.start_decoder(self.folder, encoder, **settings)
            description = self.checkpoint.description
            starts, eos_id = description.languages.starts, description.eos_id
            with splitformer_client.connect(encoder.address, decoder.address) as client:
                for (text, source, target), whole in zip(requests, expected, strict=True):
                    (answer,) = client.translate(
                        text,
                        target,
                        source_language=source,
                        keep_placeholders=False,
                        break_loops=False,
                    )
                    start = starts[target if target in starts else ""]
                    ids = [*start, *(token.id for token in answer.tokens)]
                    if answer.end.reason is EndReason.EOS:
                        ids.append(eos_id)
                    assert ids == whole
                    answers.append(answer)
        return answers


def padded(size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three random sources of different lengths, padded on the right."""
    torch.manual_seed(11)
    source, lengths = torch.randint(3, size, (3, 12)), torch.tensor([12, 7, 2])
    mask = (torch.arange(12) < lengths[:, None]).long()
    return source, lengths, mask
