"""How long gradients take to compile."""

import statistics
from collections.abc import Callable
from typing import Any

from ide_transformer.reporting import compile_seconds, middle_half

from .modes import programs
from .problem import Shape


def compiling(
    depth: int,
    shape: Shape,
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> list[dict[str, Any]]:
    """Time to trace and compile the gradient of a pre-norm march by each of `MODES`, nothing
    being cached. Rows with `depth`, `name`, `compile_seconds`, the median over rounds, and
    `compile_spread`, the range of their middle half divided by it.

    **Arguments:**

    - `depth`: layers.
    - `rounds`: how many, at least 2.
    - `on_round`: called after each round with the number done.
    """
    seconds: dict[str, list[float]] = {}
    for done in range(rounds):
        for name, (program, arguments) in programs("pre-norm", depth, shape).items():
            seconds.setdefault(name, []).append(compile_seconds(program, arguments))
        on_round(done + 1)
    return [
        {
            "depth": depth,
            "name": name,
            "compile_seconds": statistics.median(own),
            "compile_spread": middle_half(own) / statistics.median(own),
        }
        for name, own in seconds.items()
    ]
