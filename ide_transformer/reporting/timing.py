"""Time of alternatives that take turns: medians and ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ..errors import InputError


class Timing(NamedTuple):
    """The time of something, and its ratio to that of the first one timed.

    - `milliseconds`: the median over rounds.
    - `spread`: the range of the middle half of the rounds, divided by the median.
    - `time_ratio`: the median over rounds of its time divided by that of the first in the
      same round.
    - `ratio_spread`: the range of the middle half of these ratios.
    """

    milliseconds: float
    spread: float
    time_ratio: float
    ratio_spread: float


def alternate(
    turns: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> dict[str, Timing]:
    """Takes each turn once a round, so that what disturbs the machine disturbs all.

    **Arguments:**

    - `turns`: name to a function that does the work and returns the seconds it took; while it
      runs all others are idle. The first is the reference.
    - `rounds`: how many, at least 2; one more goes ahead and does not count.
    - `on_round`: called after each round with the number done.

    **Raises:** `InputError` for fewer than 2 rounds.
    """
    check_rounds(rounds)
    times: dict[str, list[float]] = {name: [] for name in turns}
    for done in range(rounds + 1):
        for name, turn in turns.items():
            seconds = turn()
            if done:
                times[name].append(seconds)
        on_round(done)
    first = times[next(iter(turns))]

    def summarise(own: list[float]) -> Timing:
        median = statistics.median(own)
        ratios = [a / b for a, b in zip(own, first, strict=True)]
        return Timing(
            milliseconds=1e3 * median,
            spread=middle_half(own) / median,
            time_ratio=statistics.median(ratios),
            ratio_spread=middle_half(ratios),
        )

    return {name: summarise(own) for name, own in times.items()}


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


def check_rounds(rounds: int) -> None:
    """Refuse fewer than 2, with an `InputError`."""
    if rounds < 2:
        raise InputError(f"rounds={rounds}: a median with its spread needs at least 2.")


def middle_half(values: list[float]) -> float:
    """The range of the middle half of some values, which are at least 2."""
    low, _, high = statistics.quantiles(values, n=4)
    return high - low
