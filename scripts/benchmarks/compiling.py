"""The time that gradients take to compile."""

import argparse
import statistics

from .shared.command import Command, Rounds, Rows, add_sizes, shape
from .shared.modes import programs
from .shared.problem import Shape
from .shared.timing import middle_half, timed_compile


def compiling(depth: int, shape: Shape, rounds: Rounds) -> Rows:
    """Time to trace and compile the gradient of a pre-norm march by each of `MODES`, with
    nothing cached. Rows with `depth`, `name`, `compile_seconds`, the median over rounds, and
    `compile_spread`, the range of their middle half divided by it.

    **Arguments:**

    - `depth`: layers.
    """
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


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sizes(parser, depth=[12, 96], batch=4, context=128)


def _measure(arguments: argparse.Namespace, rounds: Rounds) -> Rows:
    size = shape(arguments)
    return [row for depth in arguments.depth for row in compiling(depth, size, rounds)]


COMMAND = Command(
    name="compile",
    about="time to compile a gradient by each gradient mode",
    example="--depth 12 96 --rounds 5",
    rounds=3,
    add_arguments=_add_arguments,
    measure=_measure,
)
