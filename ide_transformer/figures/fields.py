"""Figures of functions of one or two coordinates."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure

from .plots import COLORS, literal, save_figure


def plot_fields(
    path: Path, points: np.ndarray, rows: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """A PNG file of functions at points `[tokens, dimension]`: in the plane a row of panels for
    each sample, on a line a panel. Each row has functions `[tokens]` by title, of which "truth"
    and "prediction" share their colours and "error" has others."""
    draw = _on_line if points.shape[1] == 1 else _in_plane
    save_figure(draw(points, rows), path)


def _on_line(points: np.ndarray, rows: Sequence[Mapping[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(3.4 * len(rows) + 1, 3.2), layout="constrained")
    all_axes = figure.subplots(1, len(rows), squeeze=False)[0]
    order = np.argsort(points[:, 0])
    for axes, row in zip(all_axes, rows, strict=True):
        for (title, values), color in zip(row.items(), COLORS, strict=False):
            style = dict(marker=".", linestyle="--" if title == "prediction" else "-")
            axes.plot(
                points[order, 0], values[order], label=literal(title), color=color, **style
            )
        axes.set_xlabel("x")
        axes.spines[["top", "right"]].set_visible(False)
    all_axes[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _in_plane(points: np.ndarray, rows: Sequence[Mapping[str, np.ndarray]]) -> Figure:
    titles = list(rows[0])
    size = 2.7 * len(titles), 2.4 * len(rows) + 0.3
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_of_row, row in zip(grid, rows, strict=True):
        for axes, (title, values) in zip(axes_of_row, row.items(), strict=True):
            like = row.get("truth", values) if title == "prediction" else values
            scale, colors = Normalize(like.min(), like.max()), "viridis"
            if title == "error":
                scale, colors = CenteredNorm(), "RdBu_r"
            # The first axis goes down, as rows do.
            across, down = points[:, 1], -points[:, 0]
            drawn = axes.tripcolor(
                across, down, values, norm=scale, cmap=colors, shading="gouraud"
            )
            figure.colorbar(drawn, ax=axes, shrink=0.85)
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.spines[:].set_visible(False)
            if axes in grid[0]:
                axes.set_title(literal(title))
    return figure
