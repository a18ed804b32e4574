"""What the trainer is made of for the recipe's own model: architecture, files, precision."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from splitformer.model import Transformer, TransformerConfig
from training.data import Batch, Batcher, BatchSettings, TokenArrays
from training.evaluate import chrf_probe, read_examples
from training.split import Part
from training.tokenizer import Tokenizer
from training.train import Report, Trainer, TrainSettings

PROBE_STRINGS = 100
VALIDATION_BATCHES = 12


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the files of a build lie; nothing in it is ever committed.

    Attributes:
        root: the folder of all work data.
    """

    root: Path

    @property
    def packages(self) -> Path:
        """Downloaded packages."""
        return self.root / "deb"

    @property
    def extracted(self) -> Path:
        """Unpacked packages, one folder each."""
        return self.root / "extracted"

    @property
    def manifest(self) -> Path:
        """Versions, checksums and licences of the packages."""
        return self.root / "sources.json"

    @property
    def pairs(self) -> Path:
        """Mined pairs."""
        return self.root / "pairs"

    @property
    def tokenizer(self) -> Path:
        """The SentencePiece model."""
        return self.root / "tokenizer.model"

    @property
    def run(self) -> Path:
        """Checkpoint and curve of the training run."""
        return self.root / "run"

    @property
    def checkpoint(self) -> Path:
        """What the training run leaves and takes up."""
        return self.run / "checkpoint.pt"

    def part(self, part: Part) -> Path:
        """Strings of a held-out part."""
        return self.root / f"{part}.jsonl"

    def arrays(self, part: Part) -> TokenArrays:
        """Reads the token arrays of a part."""
        return TokenArrays.load(self.root / f"{part}.npz")


def architecture(vocabulary: int) -> TransformerConfig:
    """Returns the shape of the default model, 8.3 M parameters at 12,000 pieces."""
    return TransformerConfig(
        source_vocabulary_size=vocabulary,
        target_vocabulary_size=vocabulary,
        d_model=256,
        heads=4,
        encoder_layers=4,
        decoder_layers=2,
        d_feed_forward=1024,
        max_positions=256,
        norm="pre",
        activation="relu",
        positions="sinusoidal",
        share_embeddings=True,
        tie_output=True,
        scale_embeddings=True,
    )


def make_trainer(
    workspace: Workspace, settings: TrainSettings, report: Report | None = None
) -> Trainer:
    """Puts a trainer together; it goes on from the workspace's checkpoint if there is one."""
    torch.set_flush_denormal(True)
    torch.manual_seed(settings.seed)
    tokenizer = Tokenizer(workspace.tokenizer)
    model = Transformer(architecture(len(tokenizer)), dropout=settings.dropout)
    examples = read_examples(workspace.part(Part.VALIDATION))
    return Trainer(
        model,
        workspace.arrays(Part.TRAINING),
        validation_batches(workspace),
        settings,
        workspace.run,
        probe=chrf_probe(tokenizer, examples, PROBE_STRINGS),
        report=report,
    )


def validation_batches(workspace: Workspace) -> list[Batch]:
    """Returns fixed batches of the validation part, all genres and languages kept."""
    settings = BatchSettings(tokens=4096, keep=(), languages=())
    arrays = workspace.arrays(Part.VALIDATION)
    return list(Batcher(arrays, settings).round(0))[:VALIDATION_BATCHES]


def bf16_pays() -> bool:
    """Says whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
