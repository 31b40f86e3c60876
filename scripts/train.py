"""Trains a model from a YAML configuration."""

import signal


# An interrupt ends the process at once, also while the package is imported.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
from pathlib import Path

import jax

from ide_transformer import InputError
from ide_transformer.training import (
    find_learning_rate,
    load_config,
    resume_run,
    run_script,
    train,
)
from ide_transformer.training.script import add_trust


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python scripts/train.py configs/shakespeare.yaml "
        "solver.kind=strang model.depth=8 name=strang-8\n"
        "  python scripts/train.py runs/strang-8 --resume\n"
        "  python scripts/train.py configs/shakespeare.yaml --find-learning-rate",
    )
    parser.add_argument(
        "config",
        type=Path,
        help="a YAML file, as in configs/; with --resume also a run, by its folder or its name",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example model.depth=8"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of this run"
    )
    parser.add_argument(
        "--find-learning-rate",
        action="store_true",
        help="do not train the run: raise the rate step by step until the loss explodes, and "
        "suggest one, with a figure and JSON in learning-rates/NAME",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    add_trust(parser)
    arguments = parser.parse_intermixed_args()
    # Not said, a configuration that lies outside of a run is trusted.
    trust = True if arguments.trust else None
    if arguments.find_learning_rate:
        if arguments.resume:
            raise InputError("--find-learning-rate starts from the first step; drop --resume.")
        config = load_config(arguments.config, arguments.overrides, trust=trust)
        found = find_learning_rate(config, folder=Path("learning-rates") / config.name)
        print(found.text)
        return
    if arguments.resume and not arguments.config.is_file():
        folder = resume_run(
            arguments.config, arguments.overrides, runs=arguments.runs, trust=arguments.trust
        )
    else:
        config = load_config(arguments.config, arguments.overrides, trust=trust)
        folder = train(config, runs=arguments.runs, resume=arguments.resume)
    if jax.process_index():
        return
    if folder.sample.exists():
        print(f"\n{folder.sample.read_text(encoding='utf-8').strip()}\n")
    for name, value in folder.load_summary().items():
        print(f"{name}: {value}")
    print(f"plots: {folder.plots}")


if __name__ == "__main__":
    run_script(main)
