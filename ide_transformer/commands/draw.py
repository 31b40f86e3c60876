"""Draws predictions of a run whose model maps functions: input, truth, prediction and error."""

import argparse
from pathlib import Path

from .options import add_mesh, add_model, add_part, chosen_model, figure_file, one_mesh


EXAMPLES = """\
  ide-transformer draw runs/darcy --part test --output darcy.png
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    about = "the figure (default: predictions.png)"
    add("--output", type=figure_file, default=Path("predictions.png"), help=about)
    add_mesh(parser)
    add_part(parser)


def run(options: argparse.Namespace) -> None:
    from ..training import draw_predictions

    mesh = one_mesh(options)
    draw_predictions(chosen_model(options), options.output, mesh=mesh, part=options.part)
    print(f"drawn: {options.output}")
