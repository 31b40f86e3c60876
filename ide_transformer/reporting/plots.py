"""Figures, written as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from numpy.typing import ArrayLike


# From this number of names on, the legend stands outside the axes.
_MANY = 6


class Curve(NamedTuple):
    """A line of a panel. Lines with the same label share a colour and a place in the legend."""

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


def plot_panels(
    path: Path,
    panels: Mapping[str, Sequence[Curve]],
    *,
    x: str,
    y: str,
    marker: str = "",
    log: bool = False,
) -> None:
    """Curves in panels next to each other, with one legend.

    **Arguments:**

    - `path`: the PNG file to write; its folder is made.
    - `panels`: title to curves.
    - `x`, `y`: labels of the axes, with units where there are any.
    - `marker`: of each point, as in matplotlib.
    - `log`: whether both axes are logarithmic.
    """
    labels = list(dict.fromkeys(curve.label for curves in panels.values() for curve in curves))
    outside = len(labels) >= _MANY or len(panels) > 1
    width = 6.4 if len(panels) == 1 else 3.6 * len(panels)
    figure = Figure(figsize=(width + 1.6 * outside, 4.0), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=True):
        for label, abscissae, ordinates in curves:
            color = f"C{labels.index(label)}"
            axes.plot(abscissae, ordinates, marker=marker, color=color, linewidth=1.3)
        axes.set(title=title, xlabel=x, **(dict(xscale="log", yscale="log") if log else {}))
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel(y)
    for index, label in enumerate(labels):
        all_axes[-1].plot([], [], marker=marker, color=f"C{index}", label=label)
    if outside:
        all_axes[-1].legend(
            frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5)
        )
    elif len(labels) > 1:
        all_axes[-1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
