"""The cost of the gradient modes: time and memory of one gradient, and time to compile it."""

import argparse
import statistics
from typing import Any

import diffrax

from ide_transformer.integration import Direct, Recompute, Recursive, Reversible
from ide_transformer.solvers import AlgebraicallyReversible, LieTrotter, Projected

from .shared.command import Command, shape, sizes
from .shared.problem import Shape, gradient_of_solve, layered
from .shared.timing import Rounds, Rows, measured, middle_half, timed_compile


_PLAIN = LieTrotter(diffrax.Euler()), LieTrotter(Projected(diffrax.Euler()))
_REVERSIBLE = (
    AlgebraicallyReversible(LieTrotter()),
    AlgebraicallyReversible(LieTrotter()).projected(),
)
# The schemes of pre-norm and of post-norm, and the gradient mode. The first is the reference.
MODES: dict[str, tuple[Any, Any, Any]] = {
    "Direct": (*_PLAIN, Direct()),
    "Recompute": (*_PLAIN, Recompute()),
    "Recompute, nothing saved": (*_PLAIN, Recompute(policy=None)),
    "Recursive": (*_PLAIN, Recursive()),
    "reversible scheme, Direct": (*_REVERSIBLE, Direct()),
    "reversible scheme, Recompute": (*_REVERSIBLE, Recompute()),
    "reversible scheme, Reversible": (*_REVERSIBLE, Reversible()),
}

NORMALIZATIONS = ("pre-norm", "post-norm")


def programs(normalization: str, depth: int, shape: Shape) -> dict[str, tuple]:
    """The program of one gradient and its arguments, for each mode by its name."""
    number, u0 = NORMALIZATIONS.index(normalization), shape.state()
    equation = layered(depth, shape, normalization)
    return {
        name: gradient_of_solve(equation, mode[number], mode[2], u0)
        for name, mode in MODES.items()
    }


def gradient(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """One gradient by each gradient mode. Rows of `measured` with `normalization` and `depth`;
    ratios are to keeping everything."""
    rows, kinds = [], options.normalization or NORMALIZATIONS
    for kind, depth in ((x, y) for x in kinds for y in options.depth):
        modes = programs(kind, depth, shape(options))
        rows += measured(modes, rounds, normalization=kind, depth=depth)
    return rows


def compiling(options: argparse.Namespace, rounds: Rounds) -> Rows:
    """Time to compile a gradient by each gradient mode. It is that of a pre-norm march, traced
    and compiled with nothing cached: the median over rounds, and the range of their middle half
    divided by it."""
    rows = []
    for depth in options.depth:
        seconds: dict[str, list[float]] = {}
        for done in range(rounds.number):
            modes = programs("pre-norm", depth, shape(options))
            for name, (program, arguments) in modes.items():
                seconds.setdefault(name, []).append(timed_compile(program, arguments)[1])
            rounds.done(done + 1)
        for name, own in seconds.items():
            median = statistics.median(own)
            row = {"depth": depth, "name": name, "compile_seconds": median}
            rows.append({**row, "compile_spread": middle_half(own) / median})
    return rows


GRADIENT = Command(
    name="gradient",
    example="--depth 96 --normalization pre-norm --figure gradient.png",
    rounds=10,
    measure=gradient,
    options=sizes(depth=[12, 48, 96], batch=4, context=128)
    | dict(normalization=NORMALIZATIONS),
)

COMPILING = Command(
    name="compile",
    example="--depth 12 96 --rounds 5",
    rounds=3,
    measure=compiling,
    options=sizes(depth=[12, 96], batch=4, context=128),
)
