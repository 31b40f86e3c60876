"""Training with a mesh in depth drawn for each step against training on one mesh."""

import argparse
import functools as ft
import time

import jax
import numpy as np

from ide_transformer.tasks import Batch

from .shared.command import Command, shape, sizes
from .shared.timing import Rounds, Rows, alternate
from .shared.training import Training, config_of


_VOCABULARY = 65
CONTROLS = ("chebyshev", "piecewise_linear", "piecewise_constant", "tied")


def meshes(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """An evaluation of the field in training with drawn meshes against training on one. Rows of
    `alternate` with `control`."""
    rows, controls = [], options.control or CONTROLS[:1]
    size = options.batch, options.context + 1
    tokens = np.random.default_rng(0).integers(0, _VOCABULARY, size)
    batch = Batch(tokens[:, :-1], tokens[:, 1:])
    drawn = f"{', '.join(map(str, options.meshes))} drawn"
    for control, depth in ((x, y) for x in controls for y in options.depth):
        kind = {"kind": control, "options": {"terms": 4} if control == "chebyshev" else {}}
        turns = {}
        for name, chosen in ((f"{depth} layers", [depth]), (drawn, options.meshes)):
            schedule = [{"meshes": [{"layers": layers} for layers in chosen]}]
            config = config_of(depth, shape(options), control=kind, schedule=schedule)
            training = Training(config, {"vocabulary": _VOCABULARY}, [batch])
            turns[name] = ft.partial(_turn, training, options.steps)
        rows += alternate(turns, rounds, control=control)
    return rows


def _turn(training: Training, steps: int) -> float:
    """Seconds for each evaluation of the field in so many steps, one after the other."""
    began = time.perf_counter()
    evaluations = [training.step()["field_evaluations"] for _ in range(steps)]
    jax.block_until_ready(training.state)
    return (time.perf_counter() - began) / float(sum(evaluations))


COMMAND = Command(
    name="meshes",
    example="--depth 8 --meshes 4 8 12 --json meshes.json",
    rounds=20,
    measure=meshes,
    options=sizes(depth=[8], batch=12, context=64)
    | dict(meshes=[4, 8, 12], steps=12, control=CONTROLS),
)
