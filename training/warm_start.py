"""Goes on from the weights of an exported model, when the checkpoint they came from is gone.

The optimizer's state is lost and starts anew; steps, tokens and seconds go on counting where the
model's learning curve ends, so that one curve tells the whole history.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from splitformer.model.checkpoint import Checkpoint
from training.curve import HEADER, Progress
from training.optimizer import Optimizer, OptimizerSettings
from training.runtime import Workspace
from training.split import Part
from training.train import write_checkpoint


def warm_start(
    folder: Path, curve: Path, workspace: Workspace, settings: OptimizerSettings
) -> Progress:
    """Writes a checkpoint with a model's weights, and the curve so far, for ``train`` to take up.

    Args:
        folder: model folder.
        curve: learning curve of the run that made the weights.
        workspace: its token arrays must be made with the model's own tokenizer.
        settings: those of the run to come.

    Raises:
        FileExistsError: the workspace has a checkpoint already.
        ValueError: the tokenizers differ, or the file is no learning curve.
    """
    if workspace.checkpoint.exists():
        raise FileExistsError(f"work: {workspace.checkpoint} must not exist yet; train goes on")
    if (folder / "tokenizer.model").read_bytes() != workspace.tokenizer.read_bytes():
        raise ValueError(
            f"tokenizer: {workspace.tokenizer} must be that of {folder}"
            " (make the arrays with `tokenizer --like`)"
        )
    tokens = int(workspace.arrays(Part.TRAINING).target_tokens.size)
    progress = read_progress(curve, tokens)
    workspace.run.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(curve, workspace.run / "curve.csv")
    model = Checkpoint(folder).load()
    write_checkpoint(workspace.checkpoint, model, Optimizer(model, settings), progress)
    return progress


def read_progress(curve: Path, round_tokens: int) -> Progress:
    """Returns the place that a curve's last row tells.

    Args:
        curve: the CSV file.
        round_tokens: target tokens of the corpus; rounds that the model may have seen are not read
            again.

    Raises:
        ValueError: the file is no learning curve, or an empty one.
    """
    with curve.open() as file:
        rows = list(csv.reader(file))
    if len(rows) < 2 or rows[0] != HEADER:
        raise ValueError(f"curve: {curve} must have rows under {','.join(HEADER)}")
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
