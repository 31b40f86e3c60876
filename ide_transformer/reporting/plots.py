"""Figures, written as PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike


def plot_curves(
    path: Path,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    x: str,
    y: str,
    marker: str = "",
    log: bool = False,
) -> None:
    """One line for each named pair of abscissae and ordinates, with labelled axes.

    **Arguments:**

    - `path`: the PNG file to write; its folder is made.
    - `curves`: name to (abscissae, ordinates).
    - `x`, `y`: labels of the axes, with units where there are any.
    - `marker`: of each point, as in matplotlib.
    - `log`: whether both axes are logarithmic.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(8.0 if len(curves) > 5 else 6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, (abscissae, ordinates) in curves.items():
        axes.plot(abscissae, ordinates, marker=marker, label=name, linewidth=1.3)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    if log:
        axes.set(xscale="log", yscale="log")
    if len(curves) > 5:
        axes.legend(
            frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5)
        )
    elif len(curves) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def plot_bars(
    path: Path, names: Sequence[str], panels: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> None:
    """Horizontal bars, one panel beside the other for each quantity.

    **Arguments:**

    - `path`: the PNG file to write; its folder is made.
    - `names`: of the bars, from top to bottom.
    - `panels`: label of an axis, with units, to (values, ranges drawn around them).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 3.0 + 3.2 * len(panels), 1.0 + 0.32 * len(names)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, (values, ranges)) in zip(all_axes, panels.items(), strict=True):
        places = np.arange(len(names))
        axes.barh(places, values, xerr=np.asarray(ranges) / 2, color="tab:blue", alpha=0.8)
        axes.set_yticks(places, names)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    all_axes[0].invert_yaxis()
    figure.savefig(path, dpi=150)
