"""Time and memory of alternatives that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache


Rows = list[dict[str, Any]]


class Rounds(NamedTuple):
    """The number of rounds, at least 2, and a function to call with the index of each."""

    count: int
    after_each: Callable[[int], Any] = lambda index: None


def alternate(turns: Mapping[str, Callable[[], float]], rounds: Rounds, **columns: Any) -> Rows:
    """Takes each turn once a round; a turn returns its seconds. Returns rows with `columns` and

    - `name`
    - `milliseconds`: the median over rounds.
    - `spread`: the range of the middle half of the rounds, divided by the median.
    - `time_ratio`: the median over rounds of the time divided by the time of the first turn.
    - `ratio_spread`: the range of the middle half of these ratios.
    """
    times: dict[str, list[float]] = {name: [] for name in turns}
    for index in range(rounds.count + 1):
        for name, turn in turns.items():
            seconds = turn()
            if index:  # the first round warms up
                times[name].append(seconds)
        rounds.after_each(index)
    first = next(iter(times.values()))
    rows = []
    for name, durations in times.items():
        median = statistics.median(durations)
        ratios = [a / b for a, b in zip(durations, first, strict=True)]
        rows.append(
            {
                **columns,
                "name": name,
                "milliseconds": 1e3 * median,
                "spread": _middle_half(durations) / median,
                "time_ratio": statistics.median(ratios),
                "ratio_spread": _middle_half(ratios),
            }
        )
    return rows


def _middle_half(values: list[float]) -> float:
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def measure_programs(
    programs: Mapping[str, tuple[Callable, tuple]], rounds: Rounds, **columns: Any
) -> Rows:
    """Compiles programs and runs each once a round. Returns the rows of `alternate` with

    - `mebibytes`, `memory_ratio`: temporary memory of the program, and its ratio to the first
      program's.
    - `compile_seconds`: see `timed_compile`.
    """
    compiled = {name: timed_compile(*program) for name, program in programs.items()}

    def turn(name: str) -> float:
        return seconds_of(lambda: compiled[name][0](*programs[name][1]))

    rows = alternate({x: lambda x=x: turn(x) for x in programs}, rounds, **columns)
    memory = {}
    for name, (program, _) in compiled.items():
        analysis: Any = program.memory_analysis()
        memory[name] = analysis.temp_size_in_bytes / 2**20
    first = memory[next(iter(programs))]
    for row in rows:
        size = memory[row["name"]]
        row |= {"mebibytes": size, "memory_ratio": size / first if first else float("nan")}
        row["compile_seconds"] = compiled[row["name"]][1]
    return rows


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds until the arrays that `work` returns are computed."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - began


def timed_compile(function: Callable, arguments: tuple) -> tuple[jax.stages.Compiled, float]:
    """A compiled function of arrays, and the seconds to trace and compile it with no cache."""
    jax.clear_caches()
    config: Any = jax.config  # whose settings are not declared
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    # JAX reads this setting again only after a reset.
    compilation_cache.reset_cache()
    try:
        # The first program of a process would also pay for the start of the compiler.
        jax.jit(lambda x: x + 1).lower(0.0).compile()
        began = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        return compiled, time.perf_counter() - began
    finally:
        config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()
