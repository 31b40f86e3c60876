"""What the gradient modes cost."""

from collections.abc import Callable
from typing import Any

from ide_transformer.reporting import measure

from .modes import programs
from .problem import Shape


def gradient(
    normalization: str,
    depth: int,
    shape: Shape,
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> list[dict[str, Any]]:
    """One gradient by each of `MODES`; ratios are to keeping everything.

    Rows of `Measurement` with `normalization`, `depth` and `name`.

    **Arguments:**

    - `normalization`: `pre-norm` or `post-norm`.
    - `depth`: layers.
    - `rounds`, `on_round`: as of `measure`.
    """
    results = measure(programs(normalization, depth, shape), rounds=rounds, on_round=on_round)
    return [
        {"normalization": normalization, "depth": depth, "name": name, **result._asdict()}
        for name, result in results.items()
    ]
