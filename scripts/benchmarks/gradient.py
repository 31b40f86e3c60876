"""The cost of the gradient modes: time and memory of one gradient, and time to compile it."""

import argparse
import statistics
from typing import NamedTuple

import diffrax

from ide_transformer.integration import (
    AbstractGradient,
    Direct,
    Recompute,
    Recursive,
    Reversible,
)
from ide_transformer.solvers import AlgebraicallyReversible, LieTrotter, Projected

from .shared.command import Command, Rounds, Rows, add_sizes, measured, shape
from .shared.problem import Shape, gradient_of_solve, post_norm, pre_norm
from .shared.timing import middle_half, timed_compile


class Mode(NamedTuple):
    """A gradient mode around a scheme; the scheme is projected where the state is
    constrained."""

    name: str
    solver: diffrax.AbstractSolver
    projected_solver: diffrax.AbstractSolver
    gradient: AbstractGradient


_PLAIN = LieTrotter(diffrax.Euler()), LieTrotter(Projected(diffrax.Euler()))

_REVERSIBLE = (
    AlgebraicallyReversible(LieTrotter()),
    AlgebraicallyReversible(LieTrotter()).projected(),
)

# The first is the reference.
MODES = (
    Mode("Direct", *_PLAIN, Direct()),
    Mode("Recompute", *_PLAIN, Recompute()),
    Mode("Recompute, nothing saved", *_PLAIN, Recompute(policy=None)),
    Mode("Recursive", *_PLAIN, Recursive()),
    Mode("reversible scheme, Direct", *_REVERSIBLE, Direct()),
    Mode("reversible scheme, Recompute", *_REVERSIBLE, Recompute()),
    Mode("reversible scheme, Reversible", *_REVERSIBLE, Reversible()),
)

NORMALIZATIONS = ("pre-norm", "post-norm")


def programs(normalization: str, depth: int, shape: Shape) -> dict[str, tuple]:
    """The program of one gradient and its arguments, for each mode by its name."""
    constrained = normalization == "post-norm"
    equation = (post_norm if constrained else pre_norm)(depth, shape)
    return {
        mode.name: gradient_of_solve(
            equation,
            mode.projected_solver if constrained else mode.solver,
            mode.gradient,
            shape.state(),
        )
        for mode in MODES
    }


def gradient(normalization: str, depth: int, shape: Shape, rounds: Rounds) -> Rows:
    """One gradient by each of `MODES`: rows of `Measurement` with `normalization`, `depth` and
    `name`; ratios are to keeping everything."""
    modes = programs(normalization, depth, shape)
    return measured(modes, rounds, normalization=normalization, depth=depth)


def _gradient_arguments(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[12, 48, 96], batch=4, context=128)
    parser.add_argument("--normalization", action="append", choices=NORMALIZATIONS)


def _measure_gradients(arguments: argparse.Namespace, rounds: Rounds) -> Rows:
    return [
        row
        for normalization in arguments.normalization or NORMALIZATIONS
        for depth in arguments.depth
        for row in gradient(normalization, depth, shape(arguments), rounds)
    ]


GRADIENT = Command(
    name="gradient",
    about="one gradient by each gradient mode",
    example="--depth 96 --normalization pre-norm --figure gradient.png",
    rounds=10,
    add_arguments=_gradient_arguments,
    measure=_measure_gradients,
)


def compiling(depth: int, shape: Shape, rounds: Rounds) -> Rows:
    """Time to trace and compile the gradient of a pre-norm march by each of `MODES`, with
    nothing cached. Rows with `depth`, `name`, `compile_seconds`, the median over rounds, and
    `compile_spread`, the range of their middle half divided by it."""
    seconds: dict[str, list[float]] = {}
    for done in range(rounds.rounds):
        for name, (program, arguments) in programs("pre-norm", depth, shape).items():
            seconds.setdefault(name, []).append(timed_compile(program, arguments)[1])
        rounds.on_round(done + 1)
    return [
        {
            "depth": depth,
            "name": name,
            "compile_seconds": statistics.median(own),
            "compile_spread": middle_half(own) / statistics.median(own),
        }
        for name, own in seconds.items()
    ]


def _compiling_arguments(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[12, 96], batch=4, context=128)


def _measure_compiling(arguments: argparse.Namespace, rounds: Rounds) -> Rows:
    size = shape(arguments)
    return [row for depth in arguments.depth for row in compiling(depth, size, rounds)]


COMPILING = Command(
    name="compile",
    about="time to compile a gradient by each gradient mode",
    example="--depth 12 96 --rounds 5",
    rounds=3,
    add_arguments=_compiling_arguments,
    measure=_measure_compiling,
)
