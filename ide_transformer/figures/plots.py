"""Figures, and PNG files of them."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
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
    """A line of a panel, and the band from the least to the most of what it is the mean of.
    Curves with the same label share a colour."""

    label: str
    x: ArrayLike
    y: ArrayLike
    band: tuple[ArrayLike, ArrayLike] | None = None


def plot_curves(path: Path, curves: Mapping[str, tuple[Any, ...]], **options: Any) -> None:
    """One line for each name, with the abscissae, ordinates and band of a `Curve`; options as
    those of `plot_panels`."""
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
    title: str = "",
    marker: str = "",
    log: Literal["", "x", "y", "xy"] = "",
    marks: Sequence[float] = (),
) -> Figure:
    """Curves in panels next to each other, by title, with one legend below; where the panels
    have labels in common they share the vertical axis. Abscissae that fall turn the horizontal
    axis around. Axes named by `log` are logarithmic where their values span a factor of ten;
    with `x` alone the abscissae are its ticks. Vertical lines stand at the `marks`. One panel
    can be read on a phone."""
    every = [curve for curves in panels.values() for curve in curves]
    styles = dict(zip(dict.fromkeys(curve.label for curve in every), itertools.cycle(_STYLES)))
    shared = len(styles) < len(every)
    scales = {
        f"{axis}scale": "log"
        for axis in log
        if _spans_ten(getattr(curve, axis) for curve in every)
    }
    width = max(3.4 * len(panels), 5.0)
    # In inches of the text of the legend.
    columns = max(1, int(width / (0.07 * max(map(len, styles), default=1) + 0.45)))
    size = width, 3.5 + 0.19 * (len(styles) / columns)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(literal(title), fontsize="medium")
    all_axes = figure.subplots(1, max(len(panels), 1), sharey=shared, squeeze=False)[0]
    drawn = {}
    for axes, (name, curves) in zip(all_axes, panels.items(), strict=False):
        axes.set(xlabel=literal(x), **scales)
        axes.set_title(literal(name))
        axes.grid(alpha=0.3)
        for mark in marks:
            axes.axvline(mark, color="0.5", linestyle=":", linewidth=1.2)
        axes.spines[["top", "right"]].set_visible(False)
        for label, abscissae, ordinates, band in curves:
            look = dict(marker=marker or "o" * (np.size(abscissae) == 1), markersize=4)
            if "yscale" in scales:  # which has no place for the others
                ordinates = np.where(np.asarray(ordinates) > 0, ordinates, np.nan)
            (drawn[literal(label)],) = axes.plot(abscissae, ordinates, **styles[label], **look)
            if band is not None:
                color = styles[label]["color"]
                axes.fill_between(abscissae, *band, color=color, alpha=0.15, linewidth=0)
        every_x = [np.atleast_1d(curve.x) for curve in curves if np.size(curve.x)]
        if every_x and every_x[0][0] > every_x[0][-1]:
            axes.invert_xaxis()
        if log == "x":
            # Few values were chosen: they are the ticks.
            values = np.unique(np.concatenate([*every_x, []]))
            axes.set_xticks(values, [f"{x:.3g}" for x in values])
            axes.set_xticks([], minor=True)
        elif "xscale" not in scales:
            whole = all((x == np.round(x)).all() for x in every_x)
            axes.xaxis.get_major_locator().set_params(integer=whole)
    all_axes[0].set_ylabel(literal(y))
    if len(drawn) > 1:
        options: dict[str, Any] = dict(loc="outside lower center", ncols=columns)
        figure.legend(drawn.values(), drawn, frameon=False, fontsize="small", **options)
    return figure


def _spans_ten(values: Iterable[ArrayLike]) -> bool:
    found = np.concatenate([*map(np.ravel, values), []])
    positive = found[found > 0]
    return bool(positive.size > 0 and positive.max() >= 10 * positive.min())


def plot_intervals(
    path: Path, intervals: Mapping[str, tuple[float, float]], *, x: str, title: str = ""
) -> None:
    """A PNG file of intervals: by name the mean and half of the width, sorted, each below its
    name and its figures, and a line at zero. It can be read on a phone. An interval that is far
    wider than most leaves the axes, so that the others can be seen."""
    ordered = sorted(intervals.items(), key=lambda item: -item[1][0])
    means, halves = np.array([interval for _, interval in ordered]).T
    figure = Figure(figsize=(5.0, 0.8 + 0.42 * len(ordered)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="black", linewidth=0.8)
    heights = np.arange(len(ordered))
    axes.errorbar(means, heights, xerr=halves, fmt="o", color=COLORS[0], capsize=3)
    beside = axes.get_yaxis_transform()
    above: dict[str, Any] = dict(transform=beside, va="bottom", fontsize="small")
    above["bbox"] = dict(facecolor="white", edgecolor="none", pad=0.5)
    for height, (name, (mean, half)) in zip(heights, ordered, strict=True):
        # Two digits of the half width, and as many decimals of the mean.
        decimals = max(1 - int(np.floor(np.log10(half))), 0) if half > 0 else 3
        text = f"{mean:+.{decimals}f} ± {half:.{decimals}f}".replace("-", "−")
        axes.text(0.0, height + 0.2, literal(name), ha="left", **above)
        axes.text(1.0, height + 0.2, text, ha="right", **above)
    # All ends that are no further away than five times their median distance, and zero.
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
    points: np.ndarray,
    rows: Mapping[str, Mapping[str, np.ndarray]],
    axes: tuple[str, str] = ("", ""),
) -> None:
    """A PNG file of functions at points `[tokens, dimension]`: in the plane a row of panels for
    each name, on a line a panel. Each row has functions `[tokens]` by title, of which "truth"
    and "prediction" share their colours and "error" has others. `axes` names those of a plane,
    the one that goes down first."""
    if points.shape[1] > 1:
        return save_figure(_in_plane(points, rows, axes), path)
    order = np.argsort(points[:, 0])
    panels = {
        f"{name}{_relative(row)}": [
            Curve(x, points[order, 0], y[order]) for x, y in row.items()
        ]
        for name, row in rows.items()
    }
    plot_panels(path, panels, x="x", y="value", marker=".")


def _in_plane(
    points: np.ndarray, rows: Mapping[str, Mapping[str, np.ndarray]], names: tuple[str, str]
) -> Figure:
    titles = list(next(iter(rows.values())))
    size = 2.7 * len(titles), 2.4 * len(rows) + 0.3
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_of_row, row in zip(grid, rows.values(), strict=True):
        for axes, (title, values) in zip(axes_of_row, row.items(), strict=True):
            like = row.get("truth", values) if title == "prediction" else values
            look: dict[str, Any] = dict(norm=Normalize(like.min(), like.max()), cmap="viridis")
            if title == "error":
                look = dict(norm=CenteredNorm(), cmap="RdBu_r")
            # The first axis goes down, as rows do.
            drawn = axes.tripcolor(
                points[:, 1], -points[:, 0], values, shading="gouraud", **look
            )
            figure.colorbar(drawn, ax=axes, shrink=0.85)
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.spines[:].set_visible(False)
            if axes in grid[0]:
                axes.set_title(literal(title))
            if title == "error":
                axes.set_title(f"error{_relative(row)}")
    for axes, name in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(f"{name}\n← {names[0]}" if names[0] else name)
    for axes in grid[-1]:
        axes.set_xlabel(names[1])
    return figure


def _relative(row: Mapping[str, np.ndarray]) -> str:
    """The relative error of a prediction, for a title."""
    if not {"truth", "error"} <= row.keys() or not row["truth"].any():
        return ""
    return f", relative {np.linalg.norm(row['error']) / np.linalg.norm(row['truth']):.2g}"


def literal(text: str) -> str:
    """A text for matplotlib, which would read mathematics between two dollars."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        figure.savefig(path, dpi=150)
