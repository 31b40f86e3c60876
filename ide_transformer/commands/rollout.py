"""Applies a learned map over a time to its own outputs, and measures the errors over time.

The run has learned trajectories (data.name=trajectories) or a flow, as
configs/navier_stokes.yaml does. With --mesh it is solved on other meshes, for example with
other points. Where the truth ends before the roll-out does, the errors end there too.
"""

import argparse
from typing import TYPE_CHECKING, Any

from . import options as shared


if TYPE_CHECKING:
    from ..figures import Curve
    from ..training import RollOut

EXAMPLES = """\
  ide-transformer rollout runs/navier_stokes --steps 8 --figure errors.png
  ide-transformer rollout runs/local --steps 20 --mesh tokens=80,160,320 --figure errors.png
  ide-transformer rollout runs/heat data.path=other.npz --stride 2 --animation heat.gif
"""
HEADINGS = {
    "error": "nRMSE",
    "geometric_mean": "its geometric mean",
    "spectrum": "error of the energy of waves",
    "unchanged": "nRMSE if nothing moved",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shared.add_model(parser, "data.path for another file; ")
    add("--steps", type=int, default=8, help="how often to apply the map (default: 8)")
    about = "each step spans this number of times of the data (default: 1)"
    add("--stride", type=int, default=1, help=about)
    about = "the most trajectories, from the first on (default: 8)"
    add("--samples", type=int, default=8, help=about)
    about = "part of the data (default: test, if there is one)"
    add("--part", choices=("validation", "test"), help=about)
    shared.add_mesh(parser)
    add("--figure", type=shared.figure_file, help="draw the errors over time into this file")
    about = "draw truth, prediction and error on the first mesh into this file"
    add("--pictures", type=shared.figure_file, help=about)
    about = "a film of truth and prediction on the first mesh, .gif or .mp4"
    add("--animation", type=shared.film_file, help=about)
    add("--json", type=shared.results_file, help="write the rows here too")


def run(options: argparse.Namespace) -> None:
    from ..integration import Mesh
    from ..reporting import show_table, write_json
    from ..training import roll_out

    meshes = shared.read_meshes(options) or [Mesh()]
    loaded = shared.load_model_of(options)
    roll_outs = {}
    rows = {}
    for mesh in meshes:
        name = ", ".join(f"{key}={x}" for key, x in mesh.described.items())
        roll_outs[name] = roll_out(
            loaded,
            options.steps,
            mesh=mesh,
            samples=options.samples,
            stride=options.stride,
            part=options.part,
        )
        rows[name] = [{**mesh.described, **row} for row in roll_outs[name].rows]
    all_rows = [row for of_mesh in rows.values() for row in of_mesh]
    show_table(all_rows, HEADINGS)
    for name, result in roll_outs.items():
        label = f"{name}: " if name else ""
        print(label + describe(result, rows[name]))
    if options.json:
        write_json(options.json, all_rows)
    if options.figure:
        _draw_errors(options, rows)
    first = next(iter(roll_outs.values()))
    if options.pictures:
        first.draw(options.pictures)
    if options.animation:
        first.animate(options.animation)
    for file in filter(None, (options.pictures, options.animation, options.figure)):
        print(f"drawn: {file}")


def describe(result: "RollOut", rows: list[dict[str, Any]]) -> str:
    """The figures of a roll-out as a whole, where it blew up, and where its truth ends."""
    parts = []
    if means := [row["geometric_mean"] for row in rows if "geometric_mean" in row]:
        parts.append(f"geometric mean of the nRMSE {means[-1]:.4g}")
        lost = result.correlation_time
        since = "never below 0.8" if lost is None else f"below 0.8 from time {lost:.4g} on"
        parts.append(f"correlation {since}")
    for sample, step in result.blown_up.items():
        time = result.times[step]
        parts.append(f"sample {sample + 1} blows up at time {time:.4g} (step {step})")
    last_true = len(result.truth) - 1
    if last_true < len(result.states) - 1:
        parts.append(f"the truth ends at step {last_true} of {len(result.states) - 1}")
    return "; ".join(parts)


def _draw_errors(options: argparse.Namespace, rows: dict[str, list[dict[str, Any]]]) -> None:
    from ..figures import Curve, plot_panels

    def curve(name: str, of_mesh: list[dict[str, Any]], column: str) -> "Curve":
        points = [(row["time"], row[column]) for row in of_mesh if column in row]
        return Curve(name, [time for time, _ in points], [x for _, x in points])

    panels: dict[str, list[Curve]] = {}
    for panel, column in (("the state", "error"), ("the energy of waves", "spectrum")):
        if any(column in row for of_mesh in rows.values() for row in of_mesh):
            panels[panel] = [curve(name or "nRMSE", x, column) for name, x in rows.items()]
    if panels:
        last = list(rows.values())[-1]
        panels["the state"].append(curve("if nothing moved", last, "unchanged"))
    look = dict(title="A roll-out", marker="o", log="y")
    plot_panels(options.figure, panels, x="time", y="nRMSE", **look)
