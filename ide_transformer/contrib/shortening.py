"""All methods that make a trained model shorter, by their names."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ide_transformer.contrib.depth import COARSENINGS, NEEDED, RULES, Rule, layer_columns
from ide_transformer.contrib.depth_problem import Problem
from ide_transformer.contrib.dropped_layers import eliminate, least_angle
from ide_transformer.contrib.meshes import coarsenings
from ide_transformer.contrib.patches import (
    least_squares_map,
    least_turned_inside,
    linear_patch,
    patch_layers,
)
from ide_transformer.contrib.replaced_layers import least_turned, replace_layers
from ide_transformer.contrib.transported import least_error_cut, transported_map
from ide_transformer.dynamics import keep_layers
from ide_transformer.models import Model


class Given(NamedTuple):
    """What a method gets: a trained model, a problem, and a seed for random choices. It reads
    the calibration samples of the problem alone."""

    model: Model
    problem: Problem
    seed: int = 0


class Shortened(NamedTuple):
    """A shorter model. `steps`: the native layers of each step."""

    layers: int
    model: Model
    steps: str


# From what is given and numbers of layers, the largest first, to a model with each number.
Method = Callable[[Given, Sequence[int]], Iterator[Shortened]]


def _keeping(choose: Callable[[Given, int], Sequence[int]]) -> Method:
    def method(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
        for number in numbers:
            kept = [int(layer) for layer in choose(given, number)]
            yield Shortened(number, keep_layers(given.model, kept), _listed(kept))

    return method


def _ranking(rule: Rule) -> Method:
    """By a rule that reads columns with a number for each layer."""

    def method(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
        columns = layer_columns(given.model, given.problem)
        return _keeping(lambda given, number: rule(columns, number).tolist())(given, numbers)

    return method


def _eliminating(score: Callable[[Given], Callable]) -> Method:
    def method(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
        for kept, shorter in eliminate(given.model, score(given)):
            if len(kept) in numbers:
                yield Shortened(len(kept), shorter, _listed(kept))
            if len(kept) == min(numbers):
                return

    return method


def _coarsening(name: str) -> Method:
    def method(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
        problem = given.problem
        options = COARSENINGS[name]
        for mesh in coarsenings(given.model, problem.calibration, read=problem.read, **options):
            layers = len(mesh.steps)
            if layers in numbers:
                # An interval with operators of layers 2 and 3 is 2/3.
                steps = ("/".join(dict.fromkeys(interval)) for interval in mesh.steps)
                yield Shortened(layers, mesh.model, " ".join(steps))
            if layers == min(numbers):
                return

    return method


def _replacing(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
    model, inputs = given.model, given.problem.calibration
    for number in numbers:
        gone = least_turned(model, model.layers - number, inputs)
        yield Shortened(number, replace_layers(model, gone, inputs), _without(model, gone))


def _linear_patch(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
    model, inputs = given.model, given.problem.calibration
    for number in numbers:
        gone = least_turned_inside(model, model.layers - number, inputs)
        shorter = patch_layers(model, gone, linear_patch(model, gone, inputs))
        yield Shortened(number, shorter, _without(model, gone))


def _least_squares(transported: bool) -> Method:
    """A map fitted at the cut where the plain map changes the read-out least."""

    def method(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
        model, problem = given.model, given.problem
        inputs, read = problem.calibration, problem.read
        for number in numbers:
            gone = least_error_cut(model, model.layers - number, inputs, read)
            if transported:
                matrix = transported_map(model, gone, inputs, read, seed=given.seed)
            else:
                matrix = least_squares_map(model, gone, inputs)
            yield Shortened(number, patch_layers(model, gone, matrix), _without(model, gone))

    return method


# Controls, which look at nothing but the number of layers.
CONTROLS: dict[str, Method] = {
    "last": _ranking(RULES["last layers dropped"]),
    "even": _ranking(RULES["evenly spread"]),
    "random": _keeping(
        lambda given, number: sorted(
            np.random.default_rng(given.seed).permutation(given.model.layers)[:number]
        )
    ),
}
# ShortGPT, angular distance, SLEB (with targets), ReplaceMe and LinearPatch.
PUBLISHED: dict[str, Method] = {
    "block_influence": _ranking(RULES["least influence dropped"]),
    "angular_distance": _keeping(
        lambda given, number: _others(
            given.model,
            least_angle(given.model, given.model.layers - number, given.problem.calibration),
        )
    ),
    "sleb": _eliminating(lambda given: given.problem.loss_score()),
    "replace_me": _replacing,
    "linear_patch": _linear_patch,
}
OURS: dict[str, Method] = {
    "estimate": _ranking(NEEDED["least estimate dropped"]),
    "divergence": _eliminating(lambda given: given.problem.divergence_score(given.model)),
    "least_squares": _least_squares(transported=False),
    "transported": _least_squares(transported=True),
    "dropped": _coarsening("dropped"),
    "merged": _coarsening("merged"),
    "coarsened": _coarsening("coarsened"),
}
METHODS: dict[str, Method] = {**CONTROLS, **PUBLISHED, **OURS}


def _others(model: Model, gone: range) -> list[int]:
    return [layer for layer in range(model.layers) if layer not in gone]


def _without(model: Model, gone: range) -> str:
    return _listed(_others(model, gone))


def _listed(layers: Sequence[int]) -> str:
    return " ".join(map(str, layers))
