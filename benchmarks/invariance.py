"""`invariance`: the same sessions alone and in random company must give the same bits.

Compared are token ids, log-probabilities, logits, keys and values. The control computes one layer
with PyTorch's dynamic quantisation, which scales a whole batch by its largest value: there a row's
neighbours change it, and the comparison must see that.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks import shapes
from benchmarks.report import Report
from splitformer.model.cache import DecoderState
from splitformer.model.checkpoint import Checkpoint
from splitformer.model.native_decoder import NativeDecoder
from splitformer.native import Question

SHAPE = "marian-base"


@dataclass(slots=True)
class Comparison:
    """Float values compared and bits that differed."""

    values: int = 0
    differing_bits: int = 0

    def add(self, one: Tensor, other: Tensor) -> None:
        """Compare two float32 tensors bit by bit."""
        bits = one.contiguous().numpy().view(np.uint32) ^ other.contiguous().numpy().view(np.uint32)
        self.values += bits.size
        self.differing_bits += int(np.bitwise_count(bits).sum())


@dataclass(eq=False, slots=True)
class Run:
    """One session's way through the loop."""

    memory: Tensor
    state: DecoderState
    inputs: list[int] = field(default_factory=lambda: [shapes.START])
    logits: list[Tensor] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


def run(report: Report, cache: Path, quick: bool) -> None:
    """Measure and report `invariance.*`."""
    decoder = Checkpoint(shapes.checkpoint_folder(SHAPE, cache)).load_decoder()
    native = NativeDecoder(decoder, "int8", threads=2)
    sessions, steps = (16, 12) if quick else (64, 32)
    memories = [torch.randn(4 + 3 * i % 40, decoder.config.d_model) for i in range(sessions)]
    company = _in_company(native, memories, steps)
    comparison = Comparison()
    for together in company:
        alone = _alone(native, together.memory, len(together.logits))
        _compare(comparison, together, alone)
    report.figure("invariance.values", comparison.values)
    report.figure("invariance.differing_bits", comparison.differing_bits)
    report.figure("invariance.control_differing_bits", _control(decoder).differing_bits)


def _in_company(native: NativeDecoder, memories: list[Tensor], steps: int) -> list[Run]:
    """Let sessions join and leave at random; each takes `steps` steps in all."""
    numbers = random.Random(0)
    runs = [Run(memory, native.begin(memory)) for memory in memories]
    while waiting := [r for r in runs if len(r.logits) < steps]:
        batch = numbers.sample(waiting, numbers.randint(1, len(waiting)))
        _advance(native, batch)
    return runs


def _alone(native: NativeDecoder, memory: Tensor, steps: int) -> Run:
    single = Run(memory, native.begin(memory))
    for _ in range(steps):
        _advance(native, [single])
    return single


def _advance(native: NativeDecoder, batch: list[Run]) -> None:
    advanced = native.advance(
        [r.inputs[r.state.length :] for r in batch],
        [r.state for r in batch],
        never=(shapes.EOS,),
        asked=dict.fromkeys(range(len(batch)), Question(logits=True)),
    )
    for row, each in enumerate(batch):
        each.inputs.append(advanced.ids[row])
        each.logits.append(torch.from_numpy(advanced.logits[row].copy()))
        each.scores.append(advanced.log_probabilities[row])


def _compare(comparison: Comparison, one: Run, other: Run) -> None:
    assert one.inputs == other.inputs
    comparison.add(torch.stack(one.logits), torch.stack(other.logits))
    comparison.add(torch.tensor(one.scores), torch.tensor(other.scores))
    for mine, its in ((one.state.own, other.state.own), (one.state.cross, other.state.cross)):
        comparison.add(torch.from_numpy(mine.keys), torch.from_numpy(its.keys))
        comparison.add(torch.from_numpy(mine.values), torch.from_numpy(its.values))


def _control(decoder: torch.nn.Module) -> Comparison:
    """Compare rows alone and in a batch under whole-tensor quantisation."""
    layer = next(m for m in decoder.modules() if isinstance(m, torch.nn.Linear))
    packed = torch.ops.quantized.linear_prepack(
        torch.quantize_per_tensor(layer.weight.detach(), 0.01, 0, torch.qint8), layer.bias.detach()
    )
    rows = torch.randn(16, layer.in_features) * torch.linspace(0.1, 4, 16)[:, None]
    batch = torch.ops.quantized.linear_dynamic(rows, packed, reduce_range=True)
    comparison = Comparison()
    for row, together in zip(rows, batch, strict=True):
        alone = torch.ops.quantized.linear_dynamic(row[None], packed, reduce_range=True)
        comparison.add(together, alone[0])
    return comparison
