import time
from collections.abc import Callable
from typing import Any

import jax


def timed_steps(
    step: Callable[[], Any], steps: int, wait: Callable[[Any], Any] = jax.block_until_ready
) -> float:
    """Seconds for each of `steps` steps that follow one another.

    One more step goes ahead and does not count: it finds caches and threads as others left
    them.

    **Arguments:**

    - `step`: makes the next step; it keeps its state, which may be donated, to itself.
    - `wait`: waits for what the last step returned.
    """
    wait(step())
    began = time.perf_counter()
    for _ in range(steps - 1):
        step()
    wait(step())
    return (time.perf_counter() - began) / steps
