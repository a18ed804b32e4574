"""The training loop: gradients, update, and now and then a log line, a probe, a checkpoint.

The budget is time: the learning rate follows the consumed share of it, so that whatever a machine
manages in the given minutes ends in well-annealed weights. Only active seconds count, and a resumed
run goes on as if it had never stopped.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from splitformer.model import Transformer
from training.curve import CurveWriter, Measurement, Progress
from training.data import Batch, Batcher, BatchSettings, TokenArrays
from training.gradient import GradientPool, evaluate_likelihood
from training.optimizer import Optimizer, OptimizerSettings

Report = Callable[[Measurement, float], None]
CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Probe:
    """What is measured on the model now and then, beside the likelihood.

    Attributes:
        columns: names of the scores, in the curve's order.
        measure: returns the scores by name.
    """

    columns: Sequence[str]
    measure: Callable[[Transformer], dict[str, float]]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How long and how to train.

    Attributes:
        minutes: active minutes, those before a warm start not counted.
        threads: threads that compute gradients.
        micro_batches: micro-batches per update.
        smoothing: label smoothing.
        dropout: on embeddings and sublayer outputs.
        bf16: compute in bfloat16 (weights stay float32).
        averaged: updates over which the weights that are measured and exported are averaged; 1:
            they are those of the last update.
        seed: seeds the weights.
        log_steps: updates between two measurements.
        probe_minutes: active minutes between two validation losses and probes.
        checkpoint_minutes: active minutes between two checkpoints.
    """

    minutes: float = 90.0
    threads: int = 2
    micro_batches: int = 4
    smoothing: float = 0.05
    dropout: float = 0.0
    bf16: bool = True
    averaged: int = 1
    seed: int = 1
    log_steps: int = 20
    probe_minutes: float = 10.0
    checkpoint_minutes: float = 3.0
    batches: BatchSettings = field(default_factory=BatchSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)

    def __post_init__(self) -> None:
        """Checks that there is a budget and something to do."""
        for name in ("minutes", "threads", "micro_batches", "averaged", "log_steps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be positive, is {getattr(self, name)}")


class Trainer:
    """Trains one model; `run` is the loop."""

    def __init__(
        self,
        model: Transformer,
        arrays: TokenArrays,
        validation: list[Batch],
        settings: TrainSettings,
        folder: Path,
        *,
        probe: Probe | None = None,
        report: Report | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes up the checkpoint in ``folder`` if there is one."""
        self.model = model
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.progress = Progress()
        self._settings = settings
        self._validation = validation
        self._dtype = torch.bfloat16 if settings.bf16 else torch.float32
        self._batcher = Batcher(arrays, settings.batches)
        self._optimizer = Optimizer(model, settings.optimizer)
        self._folder = folder
        self._probe = probe
        self._report = report
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self._restore()
        columns = probe.columns if probe else ()
        self._curve = CurveWriter(folder / "curve.csv", columns, self.progress.step)

    @property
    def checkpoint(self) -> Path:
        """The file that a run leaves and takes up."""
        return self._folder / CHECKPOINT

    @property
    def consumed(self) -> float:
        """Share of the time budget that is used up."""
        active = self.progress.seconds - self.progress.earlier
        return active / (self._settings.minutes * 60)

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Trains until the budget is used up or ``stop`` says so; always leaves a checkpoint."""
        settings = self._settings
        pool = GradientPool(self.model, settings.threads, settings.smoothing, self._dtype)
        batches = self._batches()
        before = self._clock()
        try:
            while self.consumed < 1 and not stop():
                self._update(pool, batches)
                now = self._clock()
                self.progress.seconds += now - before
                before = now
                self._care()
        finally:
            pool.close()
            self.save()

    def _update(self, pool: GradientPool, batches: Iterator[Batch]) -> None:
        group = [next(batches) for _ in range(self._settings.micro_batches)]
        loss = pool.accumulate(group)
        self._optimizer.step(self.consumed)
        self._add_to_average()
        self.progress.step += 1
        self.progress.tokens += loss.tokens
        self._curve.add(loss)

    @torch.no_grad()
    def _add_to_average(self) -> None:
        """Moves the average towards the weights; over few updates while there have been few."""
        share = 1 / min(self._settings.averaged, 1 + self.progress.step / 4)
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), share)

    def _batches(self) -> Iterator[Batch]:
        progress = self.progress
        while True:
            plan = self._batcher.plan(progress.round)
            while progress.position < len(plan):
                progress.position += 1
                yield self._batcher.batch(*plan[progress.position - 1])
            progress.round += 1
            progress.position = 0

    def _care(self) -> None:
        """Logs, probes and saves when due."""
        progress, settings = self.progress, self._settings
        probe_due = progress.seconds - progress.probed >= settings.probe_minutes * 60
        if probe_due or self.consumed >= 1:
            progress.probed = progress.seconds
            self._measure(probe=True)
        elif progress.step % settings.log_steps == 0:
            self._measure(probe=False)
        if progress.seconds - progress.saved >= settings.checkpoint_minutes * 60:
            self.save()

    def _measure(self, *, probe: bool) -> None:
        validation, scores = None, {}
        if probe:
            validation = evaluate_likelihood(self.average, self._validation, self._dtype)
            scores = self._probe.measure(self.average) if self._probe else {}
        row = self._curve.write(self.progress, validation, scores)
        if self._report:
            self._report(row, self.consumed)

    def save(self) -> None:
        """Writes the checkpoint in one piece."""
        self.progress.saved = self.progress.seconds
        write_checkpoint(self.checkpoint, self.model, self.average, self._optimizer, self.progress)

    def _restore(self) -> None:
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])


def write_checkpoint(
    path: Path,
    model: Transformer,
    average: Transformer,
    optimizer: Optimizer,
    progress: Progress,
) -> None:
    """Writes all that a run needs to go on."""
    state = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    partial = path.with_suffix(".part")
    torch.save(state, partial)
    os.replace(partial, path)
