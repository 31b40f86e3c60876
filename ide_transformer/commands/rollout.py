"""Applies a learned flow map to its own outputs, and measures the errors over time.

The run has learned a map of functions over one step of time, as configs/navier_stokes.yaml
does. With --mesh it is solved on other meshes, for example with other points.
"""

import argparse
from typing import Any

from . import options as own


EXAMPLES = """\
  ide-transformer rollout runs/navier_stokes --times 8 --figure errors.png
  ide-transformer rollout runs/local --times 20 --mesh tokens=80,160,320 --figure errors.png
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    own.add_model(parser)
    add("--times", type=int, default=8, help="how often it is applied (default: 8)")
    own.add_mesh(parser)
    add("--figure", type=own.figure_file, help="draw the errors over time into this file")
    about = "draw truth, prediction and error on the first mesh into this file"
    add("--pictures", type=own.figure_file, help=about)
    add("--json", type=own.results_file, help="write the rows here too")


def run(options: argparse.Namespace) -> None:
    from ..figures import Curve, plot_panels
    from ..integration import Mesh
    from ..reporting import show_table, write_json
    from ..training import rollout_errors

    def curve(name: str, rows: list[dict[str, Any]], column: str) -> Curve:
        return Curve(name, [row["time"] for row in rows], [row[column] for row in rows])

    meshes = own.chosen_meshes(options) or [Mesh()]
    loaded = own.chosen_model(options)
    curves: dict[str, list[Curve]] = {"the state": [], "the energy of waves": []}
    rows = []
    for mesh in meshes:
        pictures = None if rows else options.pictures
        found = rollout_errors(loaded, options.times, path=pictures, mesh=mesh)
        name = ", ".join(f"{key}={x}" for key, x in mesh.described.items()) or str(loaded.path)
        for panel, column in zip(curves.values(), ("error", "spectrum"), strict=True):
            panel.append(curve(name, found, column))
        rows += found
    headings = {
        "error": "relative error",
        "spectrum": "relative error of the energy of waves",
        "unchanged": "relative error if nothing moved",
    }
    show_table(rows, headings)
    if options.json:
        write_json(options.json, rows)
    if options.figure:
        curves["the state"].append(curve("if nothing moved", found, "unchanged"))
        look = dict(title="A roll-out", marker="o", log="y")
        plot_panels(options.figure, curves, x="time", y="relative error", **look)
    for file in filter(None, (options.pictures, options.figure)):
        print(f"drawn: {file}")
