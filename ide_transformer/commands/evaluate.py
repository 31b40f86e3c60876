"""Measures runs and checkpoints on held-out data: loss, perplexity and bits per byte of text,
accuracy on images, relative error of functions.

Several models make one table. With --mesh one model is solved on other meshes, a row for each.
With --exits its tokens stop before the end, when the rest of the solve should change their
outputs by less than a tolerance (for text and classes in nats), against the full solve; the
steps are fixed: a model with adaptive steps needs --mesh steps=1.
"""

import argparse
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import options as shared


EXAMPLES = """\
  ide-transformer evaluate glassllm --samples 50
  ide-transformer evaluate runs/shakespeare solver.kind=strang
  ide-transformer evaluate runs/characters runs/bpe --json both.json
  ide-transformer evaluate runs/any_depth --mesh layers=1,2,4,8,16 --figure depth.png
  ide-transformer evaluate runs/any_depth_burgers --mesh tokens=32,64,128
  ide-transformer evaluate runs/any_depth --mesh layers=16 --exits 0.1,0.03,0.01
  ide-transformer evaluate runs/bits --mesh horizon=40 --exits 0.1 --stops sample --order 0
  ide-transformer evaluate runs/darcy --part test --predictions darcy.png
"""
# The columns that a figure may have as its abscissa.
_ACROSS = {
    "tokens": "tokens of a sample",
    "width": "features of the state",
    "evaluations": "field evaluations of a solve",
}
HEADINGS = {
    **_ACROSS,
    "steps": "steps in a layer",
    "steps_to_T": "steps in depth",
    "targets": "targets counted",
    "tolerance": "tolerance of the exit",
    "saved": "part of the evaluations saved",
    "margin": "margin of the loss",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    shared.add_model(parser, "further models; ")
    add("--text", type=shared.input_path, help="a text file or folder to predict")
    shared.add_samples(parser)
    shared.add_mesh(parser)
    add("--figure", type=shared.figure_file, help="draw the rows of --mesh into this file")
    add("--measure", default="loss", help="the column that --figure draws (default: loss)")
    about = "tolerances at which tokens stop, a row for each, such as 0.1,0.03,0.01"
    add("--exits", type=shared.floats, metavar="TOLERANCES", help=about)
    about = "with --exits: the unit that stops on its own (default: token)"
    add("--stops", choices=("token", "sample"), default="token", help=about)
    about = (
        "with --exits: a stopped token stays (0), or continues in a straight line (1, default)"
    )
    add("--order", type=int, choices=(0, 1), default=1, help=about)
    about = "instead: draw inputs, truths, predictions and errors of a model of functions"
    add("--predictions", type=shared.figure_file, metavar="FILE", help=about)
    add("--json", type=shared.results_file, help="write the results here too")


def run(options: argparse.Namespace) -> None:
    from .. import training
    from ..integration import Mesh
    from ..reporting import show_table, write_json
    from ..tasks import read_text
    from ..training.measure.evaluation import describe_part, evaluate_models

    further = [x for x in options.overrides if "=" not in x]
    options.overrides = [x for x in options.overrides if "=" in x]
    meshes = shared.read_meshes(options)
    if (options.figure or options.exits) and not meshes:
        meshes = [Mesh()]
    if further and (meshes or options.predictions):
        raise InputError(
            "--mesh, --figure, --exits and --predictions take one model; drop "
            f"{' and '.join(further)}."
        )
    if options.predictions:
        mesh = shared.read_mesh(options)
        loaded = shared.load_model_of(options)
        training.draw_predictions(loaded, options.predictions, mesh=mesh, part=options.part)
        print(f"drawn: {options.predictions}")
        return
    text = None if options.text is None else read_text(options.text)
    data = text, options.samples, options.part
    models = [shared.load_model_of(options, path) for path in (options.model, *further)]
    loaded = models[0]
    task = training.evaluation_task(loaded, text)
    headings = {**HEADINGS, "loss": task.loss.label}
    source = data_of(loaded, describe_part(task, options.part), options.text)
    results: Any
    if options.exits:
        exit = training.estimated_exit(task.loss, stops=options.stops, order=options.order)
        rows = training.evaluate_exits(loaded, exit, options.exits, meshes, *data)
        show_table(rows, headings)
        print("the fewest evaluations at the loss of the full solve and a margin:")
        show_table(training.cheapest_exits(rows), headings)
    elif meshes:
        rows = training.evaluate_on_meshes(loaded, meshes, *data, task)
        show_table(rows, headings)
    if meshes:
        print(f"measured on {source}")
        results = [{"data": source, "tokens": task.tokens_per_sample, **row} for row in rows]
    elif further:
        rows = evaluate_models(models, *data)
        checksums = {row["data"] for row in rows}
        results = []
        for model, row in zip(models, rows, strict=True):
            row["data"] = data_of(model, row.pop("part"), options.text)
            results.append({"model": str(model.path), **row})
        show_table(results, headings)
        if len(checksums) > 1:
            print("The data or tokens differ; with --text FILE bits per byte can be compared.")
    else:
        figures = training.evaluate_loss(loaded, *data, task=task)
        for name, value in figures.items():
            about = f"  {task.loss.label}; {source}" if name == "loss" else ""
            print(f"{name}: {value:{'' if isinstance(value, int) else '.4f'}}{about}")
        results = {"data": source, "tokens": task.tokens_per_sample, **figures}
    if options.json:
        write_json(options.json, results)
    if options.figure:
        _draw(options.figure, results, options.measure, task.loss.label)
        print(f"drawn: {options.figure}")


def data_of(loaded: Any, part: str, text: Path | None = None) -> str:
    """Names the data on which a model is evaluated, and their part."""
    if text is not None:
        return str(text)
    if loaded.config is None:
        return f"shakespeare, {part}"
    data = loaded.config.data
    path = "" if data.path is None else f" {data.path}"
    return f"{data.name}{path}, {part}"


def _draw(path: Path, rows: list[dict[str, Any]], measure: str, label: str) -> None:
    """Draws a measure over tokens or width where all rows differ in them, else over cost."""
    from ..figures import plot_curves

    if measure not in rows[0]:
        raise InputError(f"--measure {measure}: the rows have {', '.join(rows[0])}.")
    counts = {name: len({row.get(name) for row in rows}) for name in ("tokens", "width")}
    across = next((name for name, n in counts.items() if n == len(rows) > 1), "evaluations")
    curves = {"": ([row[across] for row in rows], [row[measure] for row in rows])}
    y = label if measure == "loss" else measure.replace("_", " ")
    look = dict(title="The same weights on other meshes", marker="o")
    plot_curves(path, curves, x=_ACROSS[across], y=y, **look)
