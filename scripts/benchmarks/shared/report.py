"""The rows of a benchmark as a table, as JSON and as a figure, and the machine they are of."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from ide_transformer.figures import COLORS, literal, save_figure
from ide_transformer.reporting import show_table, write_json


# Column to the label of its axis and the column with its spread.
_PANELS = {
    "milliseconds": ("milliseconds", "spread"),
    "tokens_per_second": ("tokens per second", "spread"),
    "mebibytes": ("memory (MiB)", ""),
    "compile_seconds": ("seconds to compile", "compile_spread"),
}


def report(rows: list[dict[str, Any]], *, table: Path | None, figure: Path | None) -> None:
    """Prints the rows, and writes them to the files that are given."""
    show_table(rows)
    here = machine()
    print(", ".join(f"{name}: {value}" for name, value in here.items()))
    if table is not None:
        write_json(table, {"machine": here, "rows": rows})
    if figure is not None:
        plot_bars(figure, rows)


def machine() -> dict[str, Any]:
    """The processor, the cores for this process, the device, and the version of JAX."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.M)
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 0))(0)
    return {
        "processor": found[1] if found else platform.processor() or platform.machine(),
        "cores": len(cores),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }


def _name(row: dict[str, Any]) -> str:
    return ", ".join(
        value if isinstance(value, str) else f"{column} {value}"
        for column, value in row.items()
        if isinstance(value, str | int)
    )


def plot_bars(path: Path, rows: list[dict[str, Any]]) -> None:
    """Horizontal bars of all rows, a panel for each quantity."""
    panels = {column: x for column, x in _PANELS.items() if column in rows[0]}
    size = 3.0 + 3.2 * len(panels), 1.0 + 0.32 * len(rows)
    figure = Figure(figsize=size, layout="constrained")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))
    for axes, (column, (label, spread)) in zip(all_axes, panels.items(), strict=True):
        values = np.array([row[column] for row in rows], float)  # None is NaN
        ranges = values * [row.get(spread, 0.0) for row in rows]
        axes.barh(places, values, xerr=ranges / 2, color=COLORS[0], alpha=0.8)
        axes.set_yticks(places, [literal(_name(row)) for row in rows])
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
    all_axes[0].invert_yaxis()
    save_figure(figure, path)
