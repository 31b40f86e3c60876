"""Training with the embedded input on S1 and a transport cost against training without."""

import argparse
import functools as ft

import numpy as np

from ide_transformer.tasks import Batch

from .shared.command import Command, shape, sizes
from .shared.timing import Rounds, Rows, alternate
from .shared.training import Training, config_of


_VOCABULARY = 65
_SPHERE = {"model": {"input_normalization": "sphere"}}
_COST = {"costs": {"transport": 0.01}}
_RECIPES: dict[str, dict] = {
    "neither": {},
    "S1": _SPHERE,
    "transport cost": _COST,
    "both": _SPHERE | _COST,
}


def recipe(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """A step of training with each. Rows of `alternate` with `depth`."""
    rows = []
    size = options.batch, options.context + 1
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY, size)
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    for depth in options.depth:
        turns = {}
        for name, given in _RECIPES.items():
            config = config_of(depth, shape(options), **given)
            training = Training(config, {"vocabulary": _VOCABULARY}, [batch])
            turns[name] = ft.partial(training.seconds_of_a_step, options.steps)
        rows += alternate(turns, rounds, depth=depth)
    return rows


COMMAND = Command(
    name="recipe",
    example="--depth 8 --width 32 --json recipe.json",
    rounds=20,
    measure=recipe,
    options=sizes(depth=[4], batch=12, context=64) | dict(steps=20),
)
