"""Trains the recipes of loops with seeds that nobody has looked at, and tests each run once.

The recipes and the tests are fixed: configs/reasoning, and the table below. A row has the share
of test instances of which every target is right, and the share of right targets, in percent. A
study that was stopped continues when it is started again.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import jax

from commands import rows, start
from commands.rows import Row
from ide_transformer import Mesh, training
from ide_transformer.commands.options import config_file, integers, names


EXAMPLES = """\
  python scripts/loops.py --json fresh.json
  python scripts/loops.py --recipes maze --seeds 10,11,12 --json fresh.json
"""


class Test(NamedTuple):
    """Test inputs that are longer or larger, and the steps of the loop on them."""

    name: str
    steps: int
    samples: int
    overrides: tuple[str, ...] = ()


def words(first: int, last: int, steps: int, samples: int, tokens: int = 1) -> Test:
    """Inputs of `first` to `last` letters, each of `tokens` tokens."""
    lengths = f"data.options.held_out_lengths=[{first},{last}]"
    context = f"model.context={tokens * last + 2}"
    name = f"{first} to {last}" if first < last else f"{last}"
    return Test(name, steps, samples, (lengths, context))


def mazes(side: int, steps: int, samples: int, *options: str) -> Test:
    given = (f"held_out_side={side}", *options)
    name = ", ".join((f"side {side}", *options))
    return Test(name, steps, samples, tuple(f"data.options.{x}" for x in given))


# The ways of a published comparison, on side 29.
WAYS = "held_out_way=[100,140]"


WORDS = [words(9, 12, 16, 1024), words(17, 24, 32, 1024), words(17, 24, 120, 1024)]
TESTS = {
    "word_problem": WORDS,
    "parity": WORDS,
    "column_addition": [words(7, 9, 16, 1024, 2), words(10, 14, 32, 1024, 2)],
    "permutations": [*WORDS, words(49, 64, 80, 128), words(49, 64, 640, 128)],
    "maze": [
        mazes(9, 160, 1024),
        mazes(15, 160, 128),
        mazes(21, 160, 128),
        mazes(29, 320, 256, WAYS),
        mazes(59, 1280, 20),
        mazes(15, 160, 128, "held_out_ends=corridors"),
        mazes(15, 160, 128, "held_out_ends=dead_ends"),
        mazes(15, 160, 128, "held_out_removed=0.05"),
        mazes(15, 160, 128, "held_out_halls=2"),
    ],
    "v_cycle": [
        *(words(64, 64, cycles, 1024) for cycles in (1, 2, 8)),
        *(words(256, 256, cycles, 256) for cycles in (1, 2, 8)),
        *(words(1024, 1024, cycles, 64) for cycles in (1, 2, 8)),
    ],
    "v_cycle_permutations": [
        *(words(n, n, 1, 1024) for n in (32, 64, 128)),
        *(words(n, n, 1, 128) for n in (256, 1024)),
    ],
    "sudoku": [Test("10 to 12 given", 120, 1024)],
}


def add_options(parser: argparse.ArgumentParser) -> None:
    rows.add_file(parser)
    parser.add_argument("--recipes", type=names, default=[*TESTS], help="default: all")
    parser.add_argument(
        "--seeds", type=integers, default=[*range(10, 20)], help="default: 10…19"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/loops"), help="their folder")


def run(options: argparse.Namespace) -> None:
    tables: dict[str, list[Row]] = {}
    for recipe in options.recipes:
        for test in TESTS[recipe]:
            found = [tested(recipe, seed, test, options) for seed in options.seeds]
            right = [row["right"] for row in found]
            line = {"test": test.name, "steps": test.steps, "worst": min(right)}
            line |= {"median": statistics.median(right), "best": max(right)}
            tables.setdefault(recipe, []).append(line)
    rows.show(tables)


def tested(recipe: str, seed: int, test: Test, options: argparse.Namespace) -> Row:
    """The row of a test, which is measured, and its run trained, if it is missing."""
    key = {"recipe": recipe, "seed": seed, "test": test.name, "steps": test.steps}
    found = rows.find_row(options.json, key, "")
    if found is not None:
        return found
    path = trained(recipe, seed, options.runs)
    loaded = training.load_model(path, test.overrides)
    meshes = [Mesh(horizon=float(test.steps))]
    (measured,) = training.evaluate_on_meshes(loaded, meshes, samples=test.samples, part="test")
    row = {
        **key,
        "samples": test.samples,
        "right": round(100 * measured["exact_match"], 1),
        "right_targets": round(100 * measured["accuracy"], 2),
        "parameters": training.RunFolder(path).load_summary()["parameters"],
    }
    rows.write_row(options.json, key, row)
    # The number of compiled programs that a process may hold is limited.
    jax.clear_caches()
    return row


def trained(recipe: str, seed: int, runs: Path) -> Path:
    """The folder of a run, which is trained if it is not there."""
    given = [f"training.seed={seed}", f"name={recipe}_{seed}"]
    config = training.load_config(config_file(f"reasoning/{recipe}"), given)
    path = runs / config.name
    if not (path / "summary.json").is_file():
        training.train(config, runs=runs, resume=path.exists())
    return path


if __name__ == "__main__":
    start(sys.modules[__name__])
