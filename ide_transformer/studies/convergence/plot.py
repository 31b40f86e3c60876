from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...reporting import Curve, plot_panels
from .orders import MeasuredOrder


# With more schemes than these, colours tell orders.
_FEW = 10


def plot_orders(path: Path, rows: Sequence[MeasuredOrder]) -> None:
    """Error against step size on logarithmic axes: a panel for each control and constraint, a
    line for each scheme, coloured by scheme or, where they are many, by expected order."""
    few = len({row.scheme for row in rows}) <= _FEW
    panels: dict[str, list[Curve]] = {}
    for row in sorted(rows, key=lambda row: row.expected_order):
        label = row.scheme if few else f"order {row.expected_order}"
        curve = Curve(label, 1 / np.array(row.steps), row.errors)
        panels.setdefault(f"{row.control}, {row.constraint}", []).append(curve)
    labels = dict(x="step size h (layers)", y="largest error at T")
    plot_panels(path, panels, **labels, marker="o", log=True)
