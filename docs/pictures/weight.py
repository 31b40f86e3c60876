"""Draws the picture of the architecture page: a weight on its way through a step."""

import argparse
import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from ide_transformer.commands import start
from ide_transformer.figures import save_figure


EXAMPLES = """\
  python docs/pictures/weight.py docs/pictures/weight.png
"""
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "0.45"


def _box(axes: Axes, x: float, y: float, width: float, text: str, color: str = _GREY) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.36),
        width,
        0.72,
        boxstyle="round,pad=0.02,rounding_size=0.12",
        facecolor="white",
        edgecolor=color,
        linewidth=1.6,
    )
    axes.add_patch(shape)
    axes.text(x, y, text, ha="center", va="center", fontsize=9)


def _arrow(
    axes: Axes,
    begin: tuple[float, float],
    end: tuple[float, float],
    color: str,
    bend: float = 0.0,
) -> None:
    arrow = FancyArrowPatch(
        begin,
        end,
        arrowstyle="-|>",
        mutation_scale=13,
        linewidth=1.8,
        color=color,
        connectionstyle=f"arc3,rad={bend}",
        shrinkA=0,
    )
    axes.add_patch(arrow)


def draw_weight(path: Path) -> None:
    """Draw five stations of a weight, each with its file, and the state that passes below."""
    figure = Figure(figsize=(7.2, 6.4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.7, 10), ylim=(0.0, 8.6))
    axes.axis("off")
    stations = (
        (8.0, "all layers stacked:  $\\theta$  [L, …]", "control", "equation/controls"),
        (6.6, "a scan reads layer $l$:  $\\theta_l$", "march", "integration/march.py"),
        (5.2, "one term for each operator", "interval_terms", "equation/terms.py"),
    )
    for y, text, name, file in stations:
        _box(axes, 4.0, y, 5.2, text, _BLUE)
        axes.text(6.9, y + 0.14, name, fontsize=9, va="center", fontweight="bold")
        axes.text(6.9, y - 0.2, file, fontsize=8, va="center", color=_GREY)
    _arrow(axes, (4.0, 7.62), (4.0, 6.98), _BLUE)
    _arrow(axes, (4.0, 6.22), (4.0, 5.58), _BLUE)
    _arrow(axes, (3.2, 4.82), (2.3, 3.98), _BLUE)
    _arrow(axes, (4.8, 4.82), (5.7, 3.98), _BLUE)
    _box(axes, 2.1, 3.6, 3.0, "attention\n$A_1(u;\\theta_l)$", _BLUE)
    _box(axes, 5.9, 3.6, 3.0, "feed-forward\n$A_2(u;\\theta_l)$", _BLUE)
    axes.text(7.6, 3.74, "operators", fontsize=9, va="center", fontweight="bold")
    axes.text(7.6, 3.4, "equation/operators", fontsize=8, va="center", color=_GREY)
    _arrow(axes, (2.1, 3.22), (2.1, 2.18), _BLUE)
    _arrow(axes, (5.9, 3.22), (5.9, 2.18), _BLUE)
    _box(axes, 2.1, 1.8, 3.0, "$u' = u + h\\,A_1(u;\\theta_l)$", _ORANGE)
    _box(axes, 5.9, 1.8, 3.0, "$u'' = u' + h\\,A_2(u';\\theta_l)$", _ORANGE)
    axes.text(7.6, 1.94, "LieTrotter(Euler())", fontsize=9, va="center", fontweight="bold")
    axes.text(7.6, 1.6, "solvers/splitting.py", fontsize=8, va="center", color=_GREY)
    _arrow(axes, (-0.15, 1.8), (0.56, 1.8), _ORANGE)
    _arrow(axes, (3.64, 1.8), (4.36, 1.8), _ORANGE)
    axes.text(0.1, 2.0, "$u_l$", fontsize=10, color=_ORANGE)
    axes.text(3.8, 2.05, "$u'$", fontsize=10, color=_ORANGE)
    _arrow(axes, (5.9, 1.42), (5.9, 0.75), _ORANGE)
    axes.text(6.05, 1.0, "$u_{l+1} = u''$, the carry of the scan", fontsize=9, color=_ORANGE)
    _arrow(axes, (-0.35, 0.8), (1.3, 7.9), _GREEN, bend=-0.1)
    axes.text(
        -0.6,
        0.4,
        "the gradient goes back the same way\nand writes one slice of $\\theta$",
        fontsize=9,
        color=_GREEN,
        va="center",
    )
    save_figure(figure, path)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", type=Path, help="the PNG file")


def run(arguments: argparse.Namespace) -> None:
    draw_weight(arguments.picture)


if __name__ == "__main__":
    start(sys.modules[__name__])
