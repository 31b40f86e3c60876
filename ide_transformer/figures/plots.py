"""Figures, and PNG files of them."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..errors import naming


# The palette of Okabe and Ito, which colour-blind readers can tell apart, without its yellow,
# which is pale on white, and with its grey.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#999999"),
)
# Where there are more names than colours, the colours come again with other lines.
_STYLES = [
    dict(color=color, linestyle=line) for line in ("-", "--", ":", "-.") for color in COLORS
]


class Curve(NamedTuple):
    """A line of a panel. Curves with the same label share a colour."""

    label: str
    x: ArrayLike
    y: ArrayLike


def plot_curves(
    path: Path, curves: Mapping[str, tuple[ArrayLike, ArrayLike]], **options: Any
) -> None:
    """One line for each name, through its abscissae and ordinates; options as those of
    `plot_panels`."""
    plot_panels(
        path, {"": [Curve(name, *points) for name, points in curves.items()]}, **options
    )


def plot_panels(path: Path, panels: Mapping[str, Sequence[Curve]], **options: Any) -> None:
    """The figure of `draw_panels` as a PNG file; its folder is made."""
    save_figure(draw_panels(panels, **options), path)


def draw_panels(
    panels: Mapping[str, Sequence[Curve]],
    *,
    x: str,
    y: str,
    marker: str = "",
    log: Literal["", "x", "y", "xy"] = "",
) -> Figure:
    """Curves in panels next to each other, by title, with one legend; where the panels have
    labels in common they share the vertical axis. Abscissae that fall turn the horizontal axis
    around.

    **Arguments:**

    - `x`, `y`: labels of the axes, with units where there are any.
    - `marker`: of each point, as in matplotlib; a single point always has one.
    - `log`: the axes that are logarithmic; with `x` alone the abscissae are its ticks.
    """
    every = [curve for curves in panels.values() for curve in curves]
    styles = dict(zip(dict.fromkeys(curve.label for curve in every), itertools.cycle(_STYLES)))
    shared = len(styles) < len(every)
    # With room for the legend, in inches of its text.
    each = 4.8 if len(panels) < 3 else 3.6
    width = each * len(panels) + 1.0 + 0.08 * max(map(len, styles), default=0)
    height = max(4.2, 0.4 + 0.18 * len(styles))
    figure = Figure(figsize=(width, height), layout="constrained")
    all_axes = figure.subplots(1, max(len(panels), 1), sharey=shared, squeeze=False)[0]
    drawn = {}
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=False):
        axes.set(xlabel=literal(x), **{f"{axis}scale": "log" for axis in log})
        axes.set_title(literal(title))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for label, abscissae, ordinates in curves:
            look = dict(marker=marker or "o" * (np.size(abscissae) == 1), markersize=4)
            if "y" in log:  # which has no place for the others
                ordinates = np.where(np.asarray(ordinates) > 0, ordinates, np.nan)
            (drawn[literal(label)],) = axes.plot(abscissae, ordinates, **styles[label], **look)
        every_x = [np.atleast_1d(curve.x) for curve in curves if np.size(curve.x)]
        if every_x and every_x[0][0] > every_x[0][-1]:
            axes.invert_xaxis()
        if log == "x":
            # Few values were chosen: they are the ticks.
            values = np.unique(np.concatenate([*every_x, []]))
            axes.set_xticks(values, [f"{x:.3g}" for x in values])
            axes.set_xticks([], minor=True)
        if "x" not in log:
            whole = all((x == np.round(x)).all() for x in every_x)
            axes.xaxis.get_major_locator().set_params(integer=whole)
    all_axes[0].set_ylabel(literal(y))
    if len(drawn) > 1:
        options = dict(frameon=False, fontsize="small", loc="center left")
        all_axes[-1].legend(drawn.values(), drawn, bbox_to_anchor=(1, 0.5), **options)
    return figure


def plot_intervals(path: Path, intervals: Mapping[str, tuple[float, float]], *, x: str) -> None:
    """A PNG file of intervals: by name the mean and half of the width, sorted, each between its
    name and its figures, and a line at zero. An interval that is far wider than most leaves the
    axes, so that the others can be seen."""
    ordered = sorted(intervals.items(), key=lambda item: -item[1][0])
    means, halves = np.array([interval for _, interval in ordered]).T
    figure = Figure(figsize=(9.0, 0.9 + 0.32 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    heights = np.arange(len(ordered))
    axes.errorbar(means, heights, xerr=halves, fmt="o", color=COLORS[0], capsize=3)
    for height, mean, half in zip(heights, means, halves, strict=True):
        # Two digits of the half width, and as many decimals of the mean.
        decimals = max(1 - int(np.floor(np.log10(half))), 0) if half > 0 else 3
        text = f"{mean:+.{decimals}f} ± {half:.{decimals}f}".replace("-", "−")
        beside = axes.get_yaxis_transform()
        axes.text(1.06, float(height), text, transform=beside, va="center", fontsize="small")
    axes.set_yticks(heights, [literal(name) for name, _ in ordered])
    # All ends that are no further away than five times their median distance, and zero.
    ends = np.stack([means - halves, means + halves])
    near = ends[np.abs(ends) <= 5 * np.median(np.abs(ends).max(axis=0))]
    lower, upper = min(near.min(), 0.0), max(near.max(), 0.0)
    margin = 0.08 * (upper - lower) or 1.0
    axes.set(xlim=(lower - margin, upper + margin), ylim=(-0.6, len(ordered) - 0.4))
    # To the left, where the names leave room for it.
    axes.set_xlabel(literal(x), loc="right")
    axes.locator_params(axis="x", nbins=6)
    axes.grid(alpha=0.3, axis="x")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    save_figure(figure, path)


def plot_fields(
    path: Path, points: np.ndarray, rows: Sequence[Mapping[str, np.ndarray]]
) -> None:
    """A PNG file of functions at points `[tokens, dimension]`: in the plane a row of panels for
    each sample, on a line a panel. Each row has functions `[tokens]` by title, of which "truth"
    and "prediction" share their colours and "error" has others."""
    if points.shape[1] > 1:
        return save_figure(_in_plane(points, rows), path)
    order = np.argsort(points[:, 0])
    panels = {
        f"sample {number}": [Curve(x, points[order, 0], y[order]) for x, y in row.items()]
        for number, row in enumerate(rows, 1)
    }
    plot_panels(path, panels, x="x", y="value", marker=".")


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


def literal(text: str) -> str:
    """A text for matplotlib, which would read mathematics between two dollars."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        figure.savefig(path, dpi=150)
