"""The learning curve: one CSV row per measurement."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from training.recipe import LANGUAGES

if TYPE_CHECKING:
    from training.gradient import StepLoss

PLACE_COLUMNS = ("step", "seconds", "tokens")
_COLUMNS = [*PLACE_COLUMNS, "loss", "likelihood", "validation"]
CHRF_COLUMNS = tuple(f"chrf_{language}" for language in LANGUAGES)
HEADER = [*_COLUMNS, *CHRF_COLUMNS]


@dataclass(slots=True)
class Progress:
    """Where a run stands.

    Attributes:
        step: updates made.
        seconds: active seconds.
        tokens: target tokens seen.
        round: round of batches now being read.
        position: micro-batches of that round already used.
        probed: active seconds at the last probe.
        saved: active seconds at the last checkpoint.
        earlier: active seconds of the runs whose weights this one started from.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    round: int = 0
    position: int = 0
    probed: float = 0.0
    saved: float = 0.0
    earlier: float = 0.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the curve.

    Attributes:
        step: updates made.
        seconds: active seconds.
        tokens: target tokens seen.
        loss: smoothed training loss since the last row, nats per token.
        likelihood: negative log-likelihood in training since the last row, nats per token.
        validation: negative log-likelihood on held-out text, nats per token, where measured.
        scores: what the probe found, by the name of its column, where measured.
    """

    step: int
    seconds: float
    tokens: int
    loss: float
    likelihood: float
    validation: float | None = None
    scores: dict[str, float] = field(default_factory=dict)

    def cells(self, columns: Sequence[str]) -> list[str]:
        """Returns the row's text with those scores, empty where nothing was measured."""
        scores = [self.scores.get(column) for column in columns]
        numbers = [self.loss, self.likelihood, self.validation]
        head = [str(self.step), f"{self.seconds:.1f}", str(self.tokens)]
        head += ["" if number is None else f"{number:.4f}" for number in numbers]
        return head + ["" if score is None else f"{score:.2f}" for score in scores]


def read_curve(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a CSV file that a ``CurveWriter`` wrote, by column."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class CurveWriter:
    """Averages the losses between two rows and appends rows to a CSV file."""

    def __init__(self, path: Path, columns: Sequence[str], resumed_at: int = 0) -> None:
        """Drops rows beyond ``resumed_at``: a run that was cut off makes them again.

        Args:
            path: the file.
            columns: names of the probe's scores.
            resumed_at: step of the last row to keep.
        """
        self._path = path
        self._columns = columns
        self._sums = [0.0, 0.0, 0.0]  # loss and likelihood times tokens, tokens
        rows = list(csv.reader(path.open())) if path.exists() else []
        kept = [row for row in rows[1:] if int(row[0]) <= resumed_at]
        with path.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([[*_COLUMNS, *columns], *kept])

    def add(self, loss: StepLoss) -> None:
        """Counts one step."""
        for index, value in enumerate((loss.loss, loss.likelihood, 1.0)):
            self._sums[index] += value * loss.tokens

    def write(
        self, progress: Progress, validation: float | None, scores: dict[str, float]
    ) -> Measurement:
        """Appends a row and starts the next average."""
        loss, likelihood, tokens = self._sums
        row = Measurement(
            progress.step,
            progress.seconds,
            progress.tokens,
            loss / max(tokens, 1.0),
            likelihood / max(tokens, 1.0),
            validation,
            scores,
        )
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row.cells(self._columns))
        self._sums = [0.0, 0.0, 0.0]
        return row
