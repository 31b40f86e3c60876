"""Evaluates runs or checkpoints: loss, perplexity and bits per byte on text, accuracy on
images, relative error of functions. Several models make one table."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError, at
from .options import (
    add_model,
    chosen_model,
    figure_file,
    floats,
    given_path,
    meshes,
    results_file,
)


EXAMPLES = """\
  ide-transformer evaluate glassllm --samples 50
  ide-transformer evaluate runs/shakespeare solver.kind=strang
  ide-transformer evaluate runs/characters runs/bpe --json both.json
  ide-transformer evaluate runs/any_depth --mesh layers=1,2,4,8,16 --figure depth.png
  ide-transformer evaluate runs/parity --mesh horizon=8,16,24 model.context=33 \
data.options.held_out_lengths=[17,32]
  ide-transformer evaluate runs/any_depth_burgers --mesh tokens=32,64,128
  ide-transformer evaluate runs/darcy --part test --pictures darcy.png
  ide-transformer evaluate runs/navier_stokes --rollout 8 --figure errors.png
  ide-transformer evaluate runs/local --rollout 20 --mesh tokens=80,160,320 --figure errors.png
  ide-transformer evaluate runs/any_width --mesh width=64,128,256
  ide-transformer evaluate runs/any_depth --mesh layers=16 --exit 0.1,0.03,0.01
"""

Rows = list[dict[str, Any]]

# Options that need one of others, and options that cannot be combined with another.
_BESIDE = {
    "figure": ("exit", "mesh", "rollout"),
    "measure": ("figure",),
    "layers": ("mesh",),
    "exit_for": ("exit",),
    "exit_order": ("exit",),
}
_NOT_BESIDE = {
    "exit": ("layers", "rollout", "pictures"),
    "rollout": ("text", "samples", "part", "layers"),
    "pictures": ("layers",),
}
# By column of a figure, what it is; they are chosen, or follow from the choice, and are no
# measure.
_ACROSS = {
    "tokens": "tokens of a sample",
    "width": "features of the state",
    "evaluations": "field evaluations of a solve",
}
_CHOSEN = (*_ACROSS, "horizon", "tolerance", "saved")
_ROLLOUT = {
    "error": "relative error",
    "spectrum": "relative error of the energy of waves",
    "unchanged": "relative error if nothing moved",
}
_HEADINGS = {
    **_ACROSS,
    "steps": "steps in a layer",
    "steps_to_T": "steps in depth",
    "tolerance": "tolerance of the exit",
    "saved": "part of the evaluations saved",
    "targets": "targets counted",
    "margin": "margin of the loss",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser, "further models; ")
    add(
        "--text",
        type=given_path,
        help="a text file or folder to predict, in windows of the context",
    )
    add("--samples", type=int, help="how many windows, evenly spread (default: all)")
    add(
        "--part",
        choices=("validation", "test"),
        help="part of the data of a run (default: validation)",
    )
    add(
        "--mesh",
        action="append",
        metavar="layers=2,4,8",
        help="solve on another mesh, a row for each: layers, horizon, steps, "
        "solver, tokens, width; tokens=64,128,width=96 gives two rows, a second --mesh more",
    )
    add(
        "--layers",
        choices=("resampled", "spread", "first"),
        help="with --mesh layers=…: resample the weights (default), or keep so many layers",
    )
    add(
        "--rollout",
        type=int,
        help="for a flow map: apply it this many times to its own outputs, on test functions",
    )
    add(
        "--pictures",
        type=figure_file,
        help="for functions: draw truth, prediction and error into this file",
    )
    add(
        "--exit",
        type=floats,
        metavar="TOLERANCES",
        help="let tokens stop when the rest of the solve should change their outputs by less, "
        "for example 0.1,0.03,0.01 nats",
    )
    add(
        "--exit-for",
        choices=("token", "sample"),
        help="with --exit: what can stop on its own (default: token)",
    )
    add(
        "--exit-order",
        type=int,
        choices=(0, 1),
        help="with --exit: a stopped token stays (0) or continues in a straight line (1)",
    )
    add("--figure", type=figure_file, help="with one of these: draw the loss here")
    add(
        "--measure",
        help="with --figure: the column to draw (default: loss), for example exact_match",
    )
    add("--json", type=results_file, help="write the results here too")


def run(options: argparse.Namespace) -> None:
    from .. import training
    from ..integration import Mesh
    from ..reporting import show_table, write_json
    from ..tasks import read_text
    from ..training.measure.evaluation import described_part, evaluate_models, learned_before

    further = [x for x in options.overrides if "=" not in x]
    options.overrides = [x for x in options.overrides if "=" in x]
    chosen = _checked(options, further)
    text = None if options.text is None else read_text(options.text)
    loaded = chosen_model(options)
    part = options.part or "validation"
    data = text, options.samples, part
    curves: dict[str, Rows] = {}
    results: Rows | dict[str, Any]
    label = ""
    headings = _HEADINGS
    origin = {}
    if options.rollout is None:
        task = training.evaluation_task(loaded, text)
        label = task.loss.label
        headings = {**_HEADINGS, "loss": label}
        of = described_part(task, part)
        origin = {"data": _data(loaded, options.text, of), "tokens": task.tokens_per_sample}
    if options.rollout is not None:
        for mesh in chosen or [Mesh()]:
            with at(f"--rollout {options.rollout}"):
                curves[_curve(mesh, loaded)] = training.rollout_errors(
                    loaded, options.rollout, path=options.pictures, mesh=mesh
                )
        results = [row for rows in curves.values() for row in rows]
        show_table(results, _ROLLOUT)
    elif options.exit is not None:
        given = {"stops": options.exit_for, "order": options.exit_order}
        given = {name: x for name, x in given.items() if x is not None}
        exit = training.estimated_exit(task.loss, **given)
        # What its arguments are called here.
        with at(
            "--exit (order is --exit-order, stops is --exit-for; fixed steps are --mesh "
            "steps=1)"
        ):
            results = training.evaluate_exits(
                loaded, exit, options.exit, chosen or [Mesh()], *data
            )
        show_table(results, headings)
        print("the fewest evaluations at the loss of the full solve and a margin:")
        show_table(training.cheapest_exits(results), headings)
        rows = iter(results)
        for mesh in chosen or [Mesh()]:
            curves[_curve(mesh, loaded)] = [next(rows) for _ in (None, *options.exit)]
    elif chosen:
        layers = options.layers or "resampled"
        results = training.evaluate_on_meshes(loaded, chosen, *data, layers=layers)
        show_table(results, headings)
        curves = {str(loaded.path): results}
    elif further:
        models = [loaded, *(chosen_model(options, other) for other in further)]
        found = evaluate_models(models, *data)
        checksums = {row["data"] for row in found}
        parts = [row.pop("part") for row in found]
        results = [
            {"model": str(x.path), **row, "data": _data(x, options.text, of)}
            for x, row, of in zip(models, found, parts, strict=True)
        ]
        show_table(results, headings)
        if len(checksums) > 1:
            print(
                "The models are measured on other data, or read them in other tokens; --text "
                "FILE measures all on one text, where bits per byte can be compared."
            )
    else:
        results = training.evaluate_loss(loaded, *data, task=task)
        for name, value in results.items():
            said = f"  {label}; {origin['data']}" * (name == "loss")
            print(f"{name}: {value:{'' if isinstance(value, int) else '.4f'}}{said}")
    if isinstance(results, list) and not further and origin:
        print(f"measured on {origin['data']}")
    others = loaded.named or text is not None
    if others and origin and (said := learned_before(loaded, task, part)) is not None:
        print(said)
    if options.json is not None:
        own = {} if further else origin
        if isinstance(results, list):
            write_json(options.json, [{**own, **row} for row in results])
        else:
            write_json(options.json, {**own, **results})
    if options.figure is not None and options.rollout is not None:
        _draw_rollout(options.figure, curves, options.measure or "error")
    elif options.figure is not None:
        _draw(options.figure, curves, options.measure or "loss", label)
    if options.pictures is not None and options.rollout is None:
        (mesh,) = chosen or [Mesh()]
        training.draw_predictions(loaded, options.pictures, mesh=mesh, part=part)
    for file in filter(None, (options.pictures, options.figure)):
        print(f"drawn: {file}")


def _curve(mesh: Any, loaded: Any) -> str:
    """The name of a curve: the mesh, or the run on its own."""
    return ", ".join(f"{key}={x}" for key, x in mesh.described.items()) or str(loaded.path)


def _data(loaded: Any, text: Path | None, of: str) -> str:
    """The name of the data on which a model is evaluated, see `evaluation_task`, and of which
    part of them."""
    if text is not None:
        return str(text)
    if loaded.config is None:
        return f"shakespeare, {of}"
    named = loaded.config.data
    where = "" if named.path is None else f" {named.path}"
    return f"{named.name}{where}, {of}"


def _checked(options: argparse.Namespace, further: list[str]) -> list[Any]:
    """The meshes; `InputError` for options of which one would say nothing, or that are of one
    model where there are `further` ones."""

    def given(*names: str) -> str:
        found = [name for name in names if getattr(options, name) is not None]
        return " and ".join(f"--{name.replace('_', '-')}" for name in found)

    for name, others in _BESIDE.items():
        if given(name) and not given(*others):
            flags = " or ".join(f"--{x.replace('_', '-')}" for x in others)
            raise InputError(f"{given(name)} needs {flags}.")
    for name, others in _NOT_BESIDE.items():
        if given(name) and (said := given(*others)):
            raise InputError(f"{said} cannot be combined with {given(name)}; drop one.")
    if further and (said := given("mesh", "rollout", "exit", "pictures")):
        raise InputError(f"{said} measures one model; drop {' and '.join(further)}.")
    of_data = [x for x in options.overrides if x.startswith("data.")]
    if of_data and options.text is not None:
        raise InputError(f"{' and '.join(of_data)} cannot be combined with --text; drop one.")
    if options.rollout is not None:
        _check_measure(options.measure or "error", ["error", "spectrum"])
    found = [x for text in options.mesh or () for x in meshes(text)]
    if options.pictures and len(found) > 1:
        raise InputError("--pictures shows one solve; give one mesh.")
    return found


def _check_measure(measure: str, known: list[str]) -> None:
    if measure not in known:
        raise InputError(f"--measure {measure}: it must be one of {', '.join(known)}.")


def _draw(path: Path, curves: dict[str, Rows], measure: str, label: str) -> None:
    """Draws the loss, whose name is the `label`, or another measure: over tokens or features
    where all rows differ in them, and else over what they cost."""
    from ..figures import plot_curves

    rows = [row for own in curves.values() for row in own]
    known = [key for key, x in rows[0].items() if isinstance(x, float) and key not in _CHOSEN]
    _check_measure(measure, known)
    counts = {name: len({row.get(name) for row in rows}) for name in ("tokens", "width")}
    across = next((name for name, n in counts.items() if n == len(rows) > 1), "evaluations")
    points = {
        name: ([row[across] for row in own], [row[measure] for row in own])
        for name, own in curves.items()
    }
    y = label if measure == "loss" else measure.replace("_", " ")
    look = dict(title="The same weights on other meshes", marker="o")
    plot_curves(path, points, x=_ACROSS[across], y=y, **look)


def _draw_rollout(path: Path, curves: dict[str, Rows], measure: str) -> None:
    """Draws a measure over time, and the error beside that of what does not move."""
    from ..figures import plot_curves

    lines = {
        name: ([row["time"] for row in rows], [row[measure] for row in rows])
        for name, rows in curves.items()
    }
    if measure == "error":
        rows = next(iter(curves.values()))
        still = [row["unchanged"] for row in rows]
        lines["if nothing moved"] = [row["time"] for row in rows], still
    look = dict(title="A roll-out", marker="o", log="y")
    plot_curves(path, lines, x="time", y=_ROLLOUT[measure], **look)
