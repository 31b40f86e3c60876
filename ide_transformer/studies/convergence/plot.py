"""Orders of convergence as a picture."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .orders import Row


def plot_orders(path: Path, rows: list[Row]) -> None:
    """Error against step size on logarithmic axes: a panel for each control and constraint,
    a line for each scheme, coloured by its expected order."""
    panels: dict[str, list[Row]] = {}
    for row in rows:
        panels.setdefault(f"{row.control}, {row.constraint}", []).append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(1.6 + 3.6 * len(panels), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    few = len({row.scheme for row in rows}) <= 10
    for axes, (title, mine) in zip(all_axes, panels.items(), strict=True):
        for row in sorted(mine, key=lambda row: row.expected_order):
            label = row.scheme if few else f"order {row.expected_order}"
            seen = axes.get_legend_handles_labels()[1]
            axes.loglog(
                1 / np.array(row.steps),
                row.errors,
                color=None if few else f"C{row.expected_order}",
                marker="o",
                markersize=3,
                linewidth=1,
                label="_" if label in seen else label,
            )
        axes.set(title=title, xlabel="step size h (layers)")
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel("largest error at T")
    all_axes[-1].legend(frameon=False, fontsize="small", bbox_to_anchor=(1, 1))
    figure.savefig(path, dpi=150)
