"""Measuring time and memory side by side: alternating runs, medians and ratios."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class Measurement(NamedTuple):
    """What one program costs, and how that compares with the first one measured.

    - `milliseconds`: the median over rounds.
    - `spread`: the range of the middle half of the rounds, divided by the median.
    - `time_ratio`: the median over rounds of its time divided by that of the first program in
      the same round.
    - `mebibytes`, `memory_ratio`: temporary memory of the program, and divided by the first's
      (NaN if that needs none).
    - `compile_seconds`: tracing and compiling.
    """

    milliseconds: float
    spread: float
    time_ratio: float
    mebibytes: float
    memory_ratio: float
    compile_seconds: float


def measure(
    programs: Mapping[str, tuple[Callable, tuple]],
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> dict[str, Measurement]:
    """Runs each program once a round, in turn, so that what disturbs the machine disturbs all.

    **Arguments:**

    - `programs`: name to (function of arrays, its arguments). The first is the reference.
    - `rounds`: how many; one more goes ahead uncounted.
    - `on_round`: called after each round with the number done.
    """
    compiled, compile_seconds = {}, {}
    for name, (function, arguments) in programs.items():
        began = time.perf_counter()
        compiled[name] = jax.jit(function).lower(*arguments).compile()
        compile_seconds[name] = time.perf_counter() - began
    times: dict[str, list[float]] = {name: [] for name in programs}
    for done in range(rounds + 1):
        for name, (_, arguments) in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(compiled[name](*arguments))
            if done:
                times[name].append(time.perf_counter() - began)
        on_round(done)
    memory = {n: p.memory_analysis().temp_size_in_bytes / 2**20 for n, p in compiled.items()}
    first = next(iter(programs))

    def summarise(name: str) -> Measurement:
        median = statistics.median(times[name])
        low, _, high = statistics.quantiles(times[name], n=4)
        ratios = [a / b for a, b in zip(times[name], times[first], strict=True)]
        return Measurement(
            milliseconds=1e3 * median,
            spread=(high - low) / median,
            time_ratio=statistics.median(ratios),
            mebibytes=memory[name],
            memory_ratio=memory[name] / memory[first] if memory[first] else float("nan"),
            compile_seconds=compile_seconds[name],
        )

    return {name: summarise(name) for name in programs}
