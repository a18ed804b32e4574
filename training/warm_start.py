"""Goes on from the weights of an exported model, when the checkpoint they came from is gone.

The optimizer's state is lost and starts anew; steps, tokens and seconds go on counting where the
model's learning curve ends, so that one curve tells the whole history.
"""

from __future__ import annotations

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

from splitformer.model.checkpoint import Checkpoint
from training.curve import PLACE_COLUMNS, Progress
from training.optimizer import Optimizer, OptimizerSettings
from training.train import CHECKPOINT, write_checkpoint


@dataclass(frozen=True, slots=True)
class Shipped:
    """A model as it was shipped.

    Attributes:
        folder: model folder.
        curve: learning curve of the run that made its weights.
    """

    folder: Path
    curve: Path

    def check_tokenizer(self, file: Path) -> None:
        """ValueError unless token arrays made with a tokenizer are those of the model."""
        if (self.folder / file.name).read_bytes() != file.read_bytes():
            raise ValueError(
                f"tokenizer: {file} must be that of {self.folder}"
                " (make the arrays with `tokenizer --like`)"
            )

    def warm_start(self, run: Path, round_tokens: int, settings: OptimizerSettings) -> Progress:
        """Writes a checkpoint with the weights, and the curve so far, for a trainer to take up.

        Args:
            run: the trainer's folder.
            round_tokens: target tokens of the corpus; rounds that the model may have seen are not
                read again.
            settings: those of the run to come.

        Raises:
            FileExistsError: there is a checkpoint already.
            ValueError: the curve is none, or empty.
        """
        checkpoint = run / CHECKPOINT
        if checkpoint.exists():
            raise FileExistsError(f"work: {checkpoint} must not exist yet; train goes on from it")
        progress = read_progress(self.curve, round_tokens)
        run.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.curve, run / "curve.csv")
        model = Checkpoint(self.folder).load()
        write_checkpoint(checkpoint, model, model, Optimizer(model, settings), progress)
        return progress


def read_progress(curve: Path, round_tokens: int) -> Progress:
    """Returns the place that a curve's last row tells; arguments as in ``warm_start``."""
    with curve.open() as file:
        rows = list(csv.reader(file))
    if len(rows) < 2 or tuple(rows[0][:3]) != PLACE_COLUMNS:
        raise ValueError(f"curve: {curve} must have rows under {','.join(PLACE_COLUMNS)}, ...")
    step, seconds, tokens = (float(cell) for cell in rows[-1][:3])
    return Progress(
        step=int(step),
        seconds=seconds,
        tokens=int(tokens),
        round=-(-int(tokens) // round_tokens),
        probed=seconds,
        saved=seconds,
        earlier=seconds,
    )
