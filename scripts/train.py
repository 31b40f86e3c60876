"""Trains a model from a YAML configuration."""

import argparse
import json
from pathlib import Path

from ide_transformer.training import load_config, run_script, train


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example:\n  python scripts/train.py configs/shakespeare.yaml "
        "solver.kind=strang model.depth=8 name=strang-8",
    )
    parser.add_argument("config", type=Path, help="a YAML file, as in configs/")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example model.depth=8"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint of this run"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    arguments = parser.parse_intermixed_args()
    config = load_config(arguments.config, arguments.overrides)
    folder = train(config, runs=arguments.runs, resume=arguments.resume)
    if folder.sample.exists():
        print(f"\n{folder.sample.read_text(encoding='utf-8').strip()}\n")
    for name, value in json.loads(folder.summary.read_text(encoding="utf-8")).items():
        print(f"{name}: {value}")
    print(f"plots: {folder.plots}")


if __name__ == "__main__":
    run_script(main)
