"""Training with a mesh in depth drawn for each step against training on one mesh."""

import argparse
import functools as ft
import itertools
import time

import jax
import numpy as np

from ide_transformer.tasks import Batch, CrossEntropy
from ide_transformer.training import Config, build_model_of_size
from ide_transformer.training.meshes import drawn_mesh
from ide_transformer.training.phases import make_phases

from .shared.command import Command, Rounds, Rows, shape, sizes
from .shared.problem import Shape
from .shared.timing import alternate


_VOCABULARY = 65
CONTROLS = ("chebyshev", "piecewise_linear", "piecewise_constant", "tied")


class Training:
    """Steps of a language model, on meshes drawn as a run draws them."""

    def __init__(self, control: str, depth: int, meshes: list[int], shape: Shape):
        terms = control == "chebyshev"
        of_model = {"width": shape.width, "heads": shape.heads, "context": shape.context}
        tree = {
            "model": {"depth": depth, **of_model},
            "control": {"kind": control, "options": {"terms": 4} if terms else {}},
            "training": {"meshes": meshes, "batch_size": shape.batch},
        }
        config = Config.model_validate(tree)
        model = build_model_of_size(config, {"vocabulary": _VOCABULARY}, jax.random.key(0))
        self._state, (phase,) = make_phases(config, model, jax.random.key(1))
        self._training = config.training
        tokens = np.random.default_rng(0).integers(
            0, _VOCABULARY, (shape.batch, shape.context + 1)
        )
        self._batch = Batch(tokens[:, :-1], tokens[:, 1:])
        self._steps = [
            step.lower(phase.shapes, self._batch).compile()
            for step in phase.train_steps(CrossEntropy())
        ]
        self._numbers = itertools.count()

    def turn(self, steps: int) -> float:
        """Seconds for each evaluation of the field in so many steps, one after the other."""
        evaluations = []
        began = time.perf_counter()
        for number in itertools.islice(self._numbers, steps):
            step = self._steps[drawn_mesh(self._training, number)]
            self._state, metrics = step(self._state, self._batch)
            evaluations.append(metrics["field_evaluations"])
        jax.block_until_ready(self._state)
        return (time.perf_counter() - began) / float(sum(evaluations))


def meshes(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """The time for an evaluation of the field in training on one mesh of so many intervals, and
    on meshes that are drawn: rows of `Timing` with `control` and `name`; ratios are to the
    first."""
    rows, drawn, controls = [], options.meshes, options.control or CONTROLS[:1]
    for control, depth in ((x, y) for x in controls for y in options.depth):
        runs = {
            f"{depth} intervals": Training(control, depth, [depth], shape(options)),
            f"{', '.join(map(str, drawn))} drawn": Training(
                control, depth, drawn, shape(options)
            ),
        }
        turns = {name: ft.partial(run.turn, options.steps) for name, run in runs.items()}
        timings = alternate(turns, **rounds._asdict())
        rows += [
            {"control": control, "name": name, **timing._asdict()}
            for name, timing in timings.items()
        ]
    return rows


COMMAND = Command(
    name="meshes",
    about="an evaluation in training with drawn meshes against training on one",
    example="--depth 8 --meshes 4 8 12 --json meshes.json",
    rounds=20,
    measure=meshes,
    options=sizes(depth=[8], batch=12, context=64)
    | dict(meshes=[4, 8, 12], steps=12, control=CONTROLS),
)
