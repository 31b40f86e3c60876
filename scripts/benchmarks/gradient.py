"""The cost of the gradient modes."""

import argparse

from .shared.command import Command, Rounds, Rows, add_sizes, measured, shape
from .shared.modes import NORMALIZATIONS, programs
from .shared.problem import Shape


def gradient(normalization: str, depth: int, shape: Shape, rounds: Rounds) -> Rows:
    """One gradient by each of `MODES`; ratios are to keeping everything.

    Rows of `Measurement` with `normalization`, `depth` and `name`.

    **Arguments:**

    - `normalization`: `pre-norm` or `post-norm`.
    - `depth`: layers.
    """
    modes = programs(normalization, depth, shape)
    return measured(modes, rounds, normalization=normalization, depth=depth)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[12, 48, 96], batch=4, context=128)
    parser.add_argument("--normalization", action="append", choices=NORMALIZATIONS)


def _measure(arguments: argparse.Namespace, rounds: Rounds) -> Rows:
    return [
        row
        for normalization in arguments.normalization or NORMALIZATIONS
        for depth in arguments.depth
        for row in gradient(normalization, depth, shape(arguments), rounds)
    ]


COMMAND = Command(
    name="gradient",
    about="one gradient by each gradient mode",
    example="--depth 96 --normalization pre-norm --figure gradient.png",
    rounds=10,
    add_arguments=_add_arguments,
    measure=_measure,
)
