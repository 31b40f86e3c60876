"""Training with the embedded input on S1 and a transport cost against training without.

Rows of `alternate`, with `depth`, for a step of training.
"""

import argparse
import functools as ft

import numpy as np

from ide_transformer.tasks import Batch

from .shared.problem import Shape, add_sizes
from .shared.timing import Rounds, Rows, alternate
from .shared.training import Training, config_of


EXAMPLE = "--depth 8 --width 32 --json recipe.json"
ROUNDS = 20
_VOCABULARY = 65
_SPHERE = {"model": {"input_normalization": "sphere"}}
_COST = {"costs": {"transport": 0.01}}
_RECIPES: dict[str, dict] = {
    "neither": {},
    "S1": _SPHERE,
    "transport cost": _COST,
    "both": _SPHERE | _COST,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[4], batch=12, context=64)
    parser.add_argument("--steps", type=int, default=20, help="in a turn (default: 20)")


def measure(options: argparse.Namespace, rounds: Rounds) -> Rows:
    rows = []
    size = options.batch, options.context + 1
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY, size)
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    for depth in options.depth:
        turns = {}
        for name, given in _RECIPES.items():
            config = config_of(depth, Shape.of(options), **given)
            training = Training(config, {"vocabulary": _VOCABULARY}, [batch])
            turns[name] = ft.partial(training.seconds_of_a_step, options.steps)
        rows += alternate(turns, rounds, depth=depth)
    return rows
