"""One gradient of the march over depth against scans of the same mathematics by hand.

The march has the default gradient mode, or keeps everything. A scan is plain, or recomputes by
the policy of the default, also with the operators of this package. Returns the rows of
`measure_programs` with `scheme` and `depth`.
"""

import argparse
import functools as ft
import itertools
from collections.abc import Callable

import diffrax
from jaxtyping import Array, PyTree

from ide_transformer.equation import Equation
from ide_transformer.integration import Direct, Recompute
from ide_transformer.solvers import LieTrotter, Strang

from .shared import handwritten
from .shared.problem import Shape, add_sizes, build_layers, gradient_of, gradient_of_solve
from .shared.timing import Rounds, Rows, measure_programs


EXAMPLE = "--depth 48 --scheme heun --json march.json"
ROUNDS = 20
# The solver of the march, and the layer written out by hand.
SCHEMES: dict[str, tuple[diffrax.AbstractSolver, Callable]] = {
    "lie_trotter(euler)": (LieTrotter(diffrax.Euler()), handwritten.lie_trotter_layer),
    "heun": (diffrax.Heun(), handwritten.heun_layer),
    "strang(heun)": (Strang(diffrax.Heun()), handwritten.strang_layer),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[4, 48], batch=12, context=64)
    parser.add_argument("--scheme", action="append", choices=tuple(SCHEMES))


def measure(options: argparse.Namespace, rounds: Rounds) -> Rows:
    rows = []
    shape = Shape.of(options)
    u0 = shape.state()
    policy = Recompute().policy
    for scheme, depth in itertools.product(options.scheme or SCHEMES, options.depth):
        solver, layer = SCHEMES[scheme]
        equation = build_layers(depth, shape)
        programs = {
            "hand-written scan": gradient_by_hand(layer, equation, u0, None),
            "hand-written scan, recomputing": gradient_by_hand(layer, equation, u0, policy),
            "scan of our operators, recomputing": gradient_of_scan(layer, equation, u0, policy),
            "march, Recompute": gradient_of_solve(equation, solver, Recompute(), u0),
            "march, Direct": gradient_of_solve(equation, solver, Direct(), u0),
        }
        rows += measure_programs(programs, rounds, scheme=scheme, depth=depth)
    return rows


def gradient_by_hand(
    layer: Callable, equation: Equation, u0: Array, policy: Callable | None
) -> tuple[Callable, tuple]:
    """`gradient_of` the hand-written scan with the weights of a pre-norm equation."""
    fields = ft.partial(handwritten.fields, heads=equation.control(0.0)[0].heads)
    scan = ft.partial(handwritten.scan_layers, layer, fields, policy=policy)
    return gradient_of(scan, plain_weights(equation), u0)


def gradient_of_scan(
    layer: Callable, equation: Equation, u0: Array, policy: Callable | None
) -> tuple[Callable, tuple]:
    """`gradient_of` a scan of the operators of the equation; only the march differs from
    `solve`."""

    def fields(w: PyTree[Array]) -> tuple[handwritten.Field, handwritten.Field]:
        first, second = equation.control.local(w, 0.0)
        return lambda u: first(u, equation.domain), lambda u: second(u, equation.domain)

    scan = ft.partial(handwritten.scan_layers, layer, fields, policy=policy)
    return gradient_of(scan, equation.control.intervals(), u0)


def plain_weights(equation: Equation) -> handwritten.Weights:
    """The stacked weights of a pre-norm equation, by the names of the hand-written scan."""
    attention, feed_forward = equation.control.intervals()
    return {
        "query": attention.query.weight,
        "key": attention.key.weight,
        "value": attention.value.weight,
        "output": attention.output.weight,
        "attention_gain": attention.normalization.gain,
        "inner": feed_forward.inner.weight,
        "outer": feed_forward.outer.weight,
        "feed_forward_gain": feed_forward.normalization.gain,
    }
