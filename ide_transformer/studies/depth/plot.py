from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...reporting import plot_curves


def plot_methods(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes `error.png` and `loss.png` into `folder`: a line for each method in the rows of
    a `CoarseningStudy`, a point for each budget."""
    methods = dict.fromkeys(row["method"] for row in rows)
    for quantity, label in (("error", "relative error of the outputs"), ("loss", "loss")):
        curves = {}
        for method in methods:
            points = [
                (row["field_evaluations"], row[quantity])
                for row in rows
                if row["method"] == method and row[quantity] is not None
            ]
            if points:
                costs, values = zip(*sorted(points), strict=True)
                curves[method] = (np.array(costs), np.array(values))
        path = folder / f"{quantity}.png"
        plot_curves(path, curves, x="field evaluations", y=label, marker="o")
