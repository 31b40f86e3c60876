"""Curves, intervals and fields as figures and files."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.colors import CenteredNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..errors import naming


# The palette of Okabe and Ito for colour-blind readers, with grey instead of its pale yellow.
COLORS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7"),
    *("#E69F00", "#56B4E9", "#000000", "#999999"),
)
# With more names than colours, the colours repeat with other lines.
_LINES = "-", "--", ":", "-."
_STYLES = [dict(color=color, linestyle=line) for line in _LINES for color in COLORS]
# Functions [tokens] by title, for each row.
_Rows = Mapping[str, Mapping[str, np.ndarray]]


class Curve(NamedTuple):
    """A line of a panel, and the band around it. Curves with one label share a colour."""

    label: str
    x: ArrayLike
    y: ArrayLike
    band: tuple[ArrayLike, ArrayLike] | None = None


def plot_curves(path: Path, curves: Mapping[str, tuple[Any, ...]], **options: Any) -> None:
    """Draws one panel with a `Curve` for each name. For the options see `draw_panels`."""
    lines = [Curve(name, *points) for name, points in curves.items()]
    plot_panels(path, {"": lines}, **options)


def plot_panels(path: Path, panels: Mapping[str, Sequence[Curve]], **options: Any) -> None:
    """Writes the figure of `draw_panels`."""
    save_figure(draw_panels(panels, **options), path)


def draw_panels(
    panels: Mapping[str, Sequence[Curve]],
    *,
    x: str,
    y: str,
    title: str = "",
    marker: str = "",
    log: Literal["", "x", "y", "xy"] = "",
    marks: Sequence[int | float] = (),
) -> Figure:
    """Draws panels of curves side by side, with one legend below.

    Panels that share labels share the vertical axis. The axes in `log` are logarithmic if their
    values span a factor of ten. With "x" alone the values of x are its ticks. `marks` are
    vertical lines.
    """
    every = [curve for curves in panels.values() for curve in curves]
    styles = dict(zip(dict.fromkeys(curve.label for curve in every), itertools.cycle(_STYLES)))
    scales: dict[str, Any] = {}
    for axis in log:
        values = np.concatenate([np.ravel(getattr(curve, axis)) for curve in every] or [[]])
        positive = values[values > 0]
        if positive.size and positive.max() >= 10 * positive.min():
            scales[f"{axis}scale"] = "log"
    width = max(3.4 * len(panels), 5.0)
    # The width of an entry of the legend in inches.
    columns = max(1, int(width / (0.07 * max(map(len, styles), default=1) + 0.45)))
    height = 3.5 + 0.19 * (len(styles) / columns)
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(literal(title), fontsize="medium")
    shared = len(styles) < len(every)
    all_axes = figure.subplots(1, max(len(panels), 1), sharey=shared, squeeze=False)[0]
    drawn = {}
    for axes, (name, curves) in zip(all_axes, panels.items(), strict=False):
        axes.set(xlabel=literal(x), title=literal(name), **scales)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for mark in marks:
            axes.axvline(mark, color="0.5", linestyle=":", linewidth=1.2)
        for label, abscissae, ordinates, band in curves:
            one_point = np.size(abscissae) == 1
            look = dict(marker=marker or ("o" if one_point else ""), markersize=4)
            if "yscale" in scales:
                ordinates = np.where(np.asarray(ordinates) > 0, ordinates, np.nan)
            (drawn[literal(label)],) = axes.plot(abscissae, ordinates, **styles[label], **look)
            if band is not None:
                look = dict(color=styles[label]["color"], alpha=0.15, linewidth=0)
                axes.fill_between(abscissae, *band, **look)
        values = np.concatenate([np.ravel(curve.x) for curve in curves] or [[]])
        if log == "x":
            ticks = np.unique(values)
            axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        elif "xscale" not in scales:
            are_integers = bool((values == np.round(values)).all())
            axes.xaxis.get_major_locator().set_params(integer=are_integers)
    all_axes[0].set_ylabel(literal(y))
    if len(drawn) > 1:
        look: dict[str, Any] = dict(loc="outside lower center", frameon=False, fontsize="small")
        figure.legend(drawn.values(), drawn, ncols=columns, **look)
    return figure


def plot_intervals(
    path: Path, intervals: Mapping[str, tuple[float, float]], *, x: str, title: str = ""
) -> None:
    """Draws sorted intervals (mean, half of the width) by name. Wide ones are cut off."""
    ordered = sorted(intervals.items(), key=lambda item: -item[1][0])
    means, halves = np.array([interval for _, interval in ordered]).T
    figure = Figure(figsize=(5.0, 0.8 + 0.42 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    heights = np.arange(len(ordered))
    axes.errorbar(means, heights, xerr=halves, fmt="o", color=COLORS[0], capsize=3)
    above: dict[str, Any] = dict(
        transform=axes.get_yaxis_transform(),
        va="bottom",
        fontsize="small",
        bbox=dict(facecolor="white", edgecolor="none", pad=0.5),
    )
    for height, (name, (mean, half)) in zip(heights, ordered, strict=True):
        # Two digits of the half width.
        decimals = max(1 - int(np.floor(np.log10(half))), 0) if half > 0 else 3
        text = f"{mean:+.{decimals}f} ± {half:.{decimals}f}".replace("-", "−")
        axes.text(0.0, height + 0.2, literal(name), ha="left", **above)
        axes.text(1.0, height + 0.2, text, ha="right", **above)
    # Ends within five times the median distance from zero.
    ends = np.stack([means - halves, means + halves])
    near = ends[np.abs(ends) <= 5 * np.median(np.abs(ends).max(axis=0))]
    lower = min(near.min(), 0.0)
    upper = max(near.max(), 0.0)
    margin = 0.08 * (upper - lower) or 1.0
    axes.set(xlim=(lower - margin, upper + margin), ylim=(-0.6, len(ordered) - 0.3), yticks=[])
    axes.set(xlabel=literal(x), title=literal(title))
    axes.locator_params(axis="x", nbins=6)
    axes.grid(alpha=0.3, axis="x")
    axes.spines[["top", "right", "left"]].set_visible(False)
    save_figure(figure, path)


def plot_fields(
    path: Path,
    points: np.ndarray | Sequence[np.ndarray],
    rows: _Rows,
    axes: tuple[str, str] = ("", ""),
) -> None:
    """Draws rows of functions `[tokens]` by title, at points `[tokens, dimension]` for all rows
    or for each. A row is a panel if points are on a line, and a row of panels in the plane.
    "truth" and "prediction" share their colours. `axes` names the axes of a plane; the first
    points down."""
    points_of_rows = [points] * len(rows) if isinstance(points, np.ndarray) else points
    if points_of_rows[0].shape[1] > 1:
        save_figure(_in_plane(points_of_rows, rows, axes), path)
        return
    panels = {}
    for x, (name, row) in zip(points_of_rows, rows.items(), strict=True):
        order = np.argsort(x[:, 0])
        curves = [Curve(title, x[order, 0], y[order]) for title, y in row.items()]
        panels[f"{name}{_relative(row)}"] = curves
    plot_panels(path, panels, x="x", y="value", marker=".")


def _in_plane(all_points: Sequence[np.ndarray], rows: _Rows, names: tuple[str, str]) -> Figure:
    titles = list(next(iter(rows.values())))
    figure = Figure(figsize=(2.7 * len(titles), 2.4 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for points, axes_of_row, row in zip(all_points, grid, rows.values(), strict=True):
        for axes, (title, values) in zip(axes_of_row, row.items(), strict=True):
            like = row.get("truth", values) if title == "prediction" else values
            draw_picture(axes, points, values, like, is_error=title == "error")
            if axes in grid[0]:
                axes.set_title(literal(title))
            if title == "error":
                axes.set_title(f"error{_relative(row)}")
    for axes, name in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"{name}\n← {names[0]}" if names[0] else name)
    for axes in grid[-1]:
        axes.set_xlabel(names[1])
    return figure


def draw_picture(
    axes: Any, points: np.ndarray, values: np.ndarray, like: np.ndarray, *, is_error: bool
) -> Any:
    """Draws a function in the plane, with colours for the range of `like`."""
    norm = Normalize(like.min(), like.max())
    if is_error:
        norm = CenteredNorm(0.0, float(np.abs(like).max()) or 1.0)
    look = dict(norm=norm, cmap="RdBu_r" if is_error else "viridis", shading="gouraud")
    # The first axis points down, as rows do.
    picture = axes.tripcolor(points[:, 1], -points[:, 0], values, **look)
    axes.figure.colorbar(picture, ax=axes, shrink=0.85)
    axes.set(xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_visible(False)
    return picture


def _relative(row: Mapping[str, np.ndarray]) -> str:
    if not {"truth", "error"} <= row.keys() or not row["truth"].any():
        return ""
    return f", relative {np.linalg.norm(row['error']) / np.linalg.norm(row['truth']):.2g}"


def literal(text: str) -> str:
    """Escapes the dollars of a text, which matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure and makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        figure.savefig(path, dpi=150)
