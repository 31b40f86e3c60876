"""The figure of an evaluation."""

import argparse
from pathlib import Path
from typing import Any

from ide_transformer import InputError


# By column, what it is; they are chosen, or follow from the choice, and are no measure.
_ACROSS = {
    "evaluations": "field evaluations of a solve",
    "tokens": "tokens of a sample",
    "width": "features of the state",
}
_CHOSEN = (*_ACROSS, "horizon", "tolerance", "saved")


def draw(
    arguments: argparse.Namespace,
    curves: dict[str, list[dict[str, Any]]],
    across: str,
    loss: str,
) -> None:
    """Draws the loss, or another measure, over one of the columns.

    **Arguments:**

    - `curves`: rows by name.
    - `loss`: what the loss is called.
    """
    from ide_transformer.figures import plot_curves

    measure, row = arguments.measure, next(iter(curves.values()))[0]
    known = [key for key, x in row.items() if isinstance(x, float) and key not in _CHOSEN]
    if measure not in known:
        raise InputError(f"--measure {measure}: known here are {', '.join(known)}.")
    points = {
        name: ([row[across] for row in rows], [row[measure] for row in rows])
        for name, rows in curves.items()
    }
    label = loss if measure == "loss" else measure.replace("_", " ")
    plot_curves(arguments.figure, points, x=_ACROSS[across], y=label, marker="o")


def draw_rollout(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draws the error over time, beside that of what does not move."""
    from ide_transformer.figures import plot_curves

    time = [row["time"] for row in rows]
    lines = {name: (time, [row[name] for row in rows]) for name in ("error", "unchanged")}
    plot_curves(path, lines, x="time", y="relative error", marker="o", log="y")
