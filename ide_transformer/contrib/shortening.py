"""All methods that make a trained model shorter, by their names."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ide_transformer.contrib.depth_problem import Problem
from ide_transformer.contrib.dropped_layers import eliminate
from ide_transformer.contrib.layers import MOVES, drops, mergers, selections
from ide_transformer.contrib.meshes import coarsenings
from ide_transformer.contrib.replaced_layers import least_turned, mean_turns, replace_layers
from ide_transformer.dynamics import keep_layers
from ide_transformer.models import Model


# Methods and their options of `coarsenings`.
COARSENINGS: dict[str, dict[str, Any]] = {
    "coarsened": dict(moves=MOVES),
    "dropped": dict(moves=(selections, drops), fit=None),
    "merged": dict(moves=(mergers,), fit=None),
}


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


def _least_influence(given: Given, numbers: Sequence[int]) -> Iterator[Shortened]:
    """Drops the layers that turn the state least, which is ShortGPT's block influence."""
    turns = mean_turns(given.model, 1, given.problem.calibration)
    order = np.argsort(-turns, kind="stable")
    return _keeping(lambda given, number: np.sort(order[:number]).tolist())(given, numbers)


# Controls, which look at nothing but the number of layers.
CONTROLS: dict[str, Method] = {
    "last": _keeping(lambda given, number: range(number)),
    # With the first and the last layer. Reference: Sajjad et al., arXiv 2004.03844.
    "even": _keeping(
        lambda given, number: (
            np.linspace(0, given.model.layers - 1, number).round().astype(int).tolist()
        )
    ),
    "random": _keeping(
        lambda given, number: sorted(
            np.random.default_rng(given.seed).permutation(given.model.layers)[:number]
        )
    ),
}
# ShortGPT, SLEB (with targets) and ReplaceMe.
PUBLISHED: dict[str, Method] = {
    "block_influence": _least_influence,
    "sleb": _eliminating(lambda given: given.problem.loss_score()),
    "replace_me": _replacing,
}
OURS: dict[str, Method] = {name: _coarsening(name) for name in COARSENINGS}
METHODS: dict[str, Method] = {**CONTROLS, **PUBLISHED, **OURS}


def _without(model: Model, gone: range) -> str:
    return _listed([layer for layer in range(model.layers) if layer not in gone])


def _listed(layers: Sequence[int]) -> str:
    return " ".join(map(str, layers))
