"""Measures a model whose tokens stop before the end, against the full solve.

A token stops when the rest of the solve should change its outputs by less than a tolerance; for
text and classes in nats. The steps are fixed: a model with adaptive steps needs --mesh steps=1.
"""

import argparse

from . import options as own
from .evaluate import HEADINGS, data_of


EXAMPLES = """\
  ide-transformer exits runs/any_depth --mesh layers=16 --tolerances 0.1,0.03,0.01
  ide-transformer exits runs/bits --mesh horizon=40 --stops sample --order 0
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    own.add_model(parser)
    about = "a row for each (default: 0.1,0.03,0.01)"
    add("--tolerances", type=own.floats, default=[0.1, 0.03, 0.01], help=about)
    about = "what can stop on its own (default: token)"
    add("--stops", choices=("token", "sample"), default="token", help=about)
    about = "a stopped token stays (0), or continues in a straight line (1, default)"
    add("--order", type=int, choices=(0, 1), default=1, help=about)
    own.add_mesh(parser)
    own.add_samples(parser)
    add("--json", type=own.results_file, help="write the rows here too")


def run(options: argparse.Namespace) -> None:
    from .. import training
    from ..integration import Mesh
    from ..reporting import show_table, write_json
    from ..training.measure.evaluation import described_part

    meshes = own.chosen_meshes(options) or [Mesh()]
    loaded = own.chosen_model(options)
    task = training.evaluation_task(loaded)
    exit = training.estimated_exit(task.loss, stops=options.stops, order=options.order)
    rows = training.evaluate_exits(
        loaded, exit, options.tolerances, meshes, None, options.samples, options.part
    )
    headings = HEADINGS | {
        "tolerance": "tolerance of the exit",
        "saved": "part of the evaluations saved",
        "margin": "margin of the loss",
        "loss": task.loss.label,
    }
    show_table(rows, headings)
    print("the fewest evaluations at the loss of the full solve and a margin:")
    show_table(training.cheapest_exits(rows), headings)
    source = data_of(loaded, described_part(task, options.part))
    print(f"measured on {source}")
    if options.json:
        origin = {"data": source, "tokens": task.tokens_per_sample}
        write_json(options.json, [{**origin, **row} for row in rows])
