"""Trains a model from a YAML configuration."""

import argparse
import re
from pathlib import Path
from typing import Any

from ..errors import InputError, printable
from .options import add_trust, config_file


EXAMPLES = """\
  ide-transformer train shakespeare solver.kind=strang model.layers=8 name=strang-8
  ide-transformer train runs/strang-8 --resume
  ide-transformer train navier_stokes --baseline fno:learning_rate=3e-3,resnet
  ide-transformer train coarse_first --plan evaluations=12000
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    about = "a YAML file, the name of a configuration of the package, or with --resume a run"
    add("config", help=about)
    add("overrides", nargs="*", metavar="key=value", help="for example model.layers=8")
    modes = parser.add_mutually_exclusive_group()
    about = "continue from the last checkpoint of this run, also for more training.steps"
    modes.add_argument("--resume", action="store_true", help=about)
    about = "instead: list the runs of a cost"
    modes.add_argument("--plan", type=_evaluations, metavar="evaluations=12000", help=about)
    about = """afterwards, train another kind of model on the same data, and compare: fno,
    resnet, unet, or any model.kind, with its options and keys of the optimizer; several
    between commas"""
    modes.add_argument("--baseline", action="append", metavar="KIND[:key=value]", help=about)
    add("--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)")
    add_trust(parser)


def _evaluations(text: str) -> int:
    budget = re.fullmatch(r"evaluations=([1-9][0-9]*)", text)
    if budget is None:
        raise argparse.ArgumentTypeError(f"{text}: use for example evaluations=12000")
    return int(budget[1])


def run(options: argparse.Namespace) -> None:
    try:
        file = config_file(options.config)
    except InputError:
        if not options.resume:
            raise
        file = None
    import jax

    from .. import reporting, training

    if file is None:
        folder = training.resume_run(
            options.config, options.overrides, runs=options.runs, trust=options.trust
        )
    else:
        # Without --trust a configuration outside a run is trusted.
        trust = options.trust or None
        config = training.load_config(file, options.overrides, trust=trust)
        if options.plan is not None:
            from ..compare.budget import advice, plan_refinement

            reporting.show_table(plan_refinement(config, options.plan))
            print(advice(config))
            return
        if options.baseline:
            _train_with_baselines(config, options)
            return
        folder = training.train(config, runs=options.runs, resume=options.resume)
    if jax.process_index():
        return
    if (text := folder.load_sample()) is not None:
        reporting.show_text(f"\n{text}\n")
    for name, value in folder.load_summary().items():
        print(printable(f"{name}: {value}", ""))
    print(f"plots: {folder.plots}")


def _train_with_baselines(config: Any, options: argparse.Namespace) -> None:
    import jax

    from .. import reporting, training
    from ..compare.baselines import read_baselines, train_baselines

    baselines = read_baselines(options.baseline, config)
    folder = training.train(config, runs=options.runs)
    rows = train_baselines(folder, baselines, options.runs)
    if not jax.process_index():
        reporting.show_table(rows)
        print(f"rows: {folder.path / 'baselines.json'}")
