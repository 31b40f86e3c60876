"""The time and memory of one gradient by each gradient mode, and the time to compile it.

Returns the rows of `measure_programs` with `normalization` and `depth`. Ratios are relative to
`Direct`.
"""

import argparse
from typing import Any

import diffrax

from ide_transformer.integration import Direct, Recompute, Recursive, Reversible
from ide_transformer.solvers import AlgebraicallyReversible, LieTrotter, Projected

from .shared.problem import Shape, add_sizes, build_layers, gradient_of_solve
from .shared.timing import Rounds, Rows, measure_programs


EXAMPLE = "--depth 96 --normalization pre-norm --json gradient.json"
ROUNDS = 10
_PLAIN = LieTrotter(diffrax.Euler()), LieTrotter(Projected(diffrax.Euler()))
_ALGEBRAIC = AlgebraicallyReversible(LieTrotter())
_REVERSIBLE = _ALGEBRAIC, _ALGEBRAIC.projected()
# The scheme for pre-norm, the one for post-norm, and the gradient mode.
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


def add_options(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[12, 48, 96], batch=4, context=128)
    parser.add_argument("--normalization", action="append", choices=NORMALIZATIONS)


def measure(options: argparse.Namespace, rounds: Rounds) -> Rows:
    rows = []
    shape = Shape.of(options)
    for kind in options.normalization or NORMALIZATIONS:
        index = NORMALIZATIONS.index(kind)
        for depth in options.depth:
            equation = build_layers(depth, shape, kind)
            programs = {
                name: gradient_of_solve(equation, mode[index], mode[2], shape.state())
                for name, mode in MODES.items()
            }
            rows += measure_programs(programs, rounds, normalization=kind, depth=depth)
    return rows
