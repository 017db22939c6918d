"""The loss curve of a run: a list of points, a CSV file, a picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Point:
    """The losses, in nats a token, after ``step`` steps; None where none was measured."""

    step: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float


def validation_losses(points: Sequence[Point]) -> list[float]:
    """Return the validation losses in the order in which they were measured."""
    return [point.validation_loss for point in points if point.validation_loss is not None]


def figure(points: Sequence[Point]) -> Figure:
    """Draw both losses over the steps; no display is needed."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7, 4), layout="constrained")
    axes = drawing.add_subplot(xlabel="step", ylabel="loss (nats a character)")
    axes.plot([p.step for p in points], [p.train_loss for p in points], label="training")
    checked = [(p.step, p.validation_loss) for p in points if p.validation_loss is not None]
    axes.plot([s for s, _ in checked], [v for _, v in checked], "o-", label="validation")
    axes.legend()
    return drawing


def save_curve(points: Sequence[Point], folder: Path) -> None:
    """Write ``loss.csv`` and ``loss.png`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "loss.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Point)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(point) for point in points)
    figure(points).savefig(folder / "loss.png", dpi=120)
