"""Time and memory of alternatives that take turns."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache


Rows = list[dict[str, Any]]


class Rounds(NamedTuple):
    """The number of turns of each, 2 or more, and what is called after each round."""

    number: int
    done: Callable[[int], Any] = lambda number: None


def alternate(turns: Mapping[str, Callable[[], float]], rounds: Rounds, **columns: Any) -> Rows:
    """Takes each turn, which says its seconds, once a round, so that what disturbs the machine
    disturbs all; see `rows_of`."""
    times: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds.number + 1):
        for name, turn in turns.items():
            seconds = turn()
            if number:
                times[name].append(seconds)
        rounds.done(number)
    return rows_of(times, **columns)


def rows_of(times: Mapping[str, list[float]], **columns: Any) -> Rows:
    """A row for each name and its seconds in each round, with `columns` and

    - `name`
    - `milliseconds`: the median over rounds.
    - `spread`: the range of the middle half of the rounds, divided by the median.
    - `time_ratio`: the median over rounds of its time divided by that of the first in the
      same round.
    - `ratio_spread`: the range of the middle half of these ratios.
    """
    first, rows = next(iter(times.values())), []
    for name, own in times.items():
        median = statistics.median(own)
        ratios = [a / b for a, b in zip(own, first, strict=True)]
        row = {"name": name, "milliseconds": 1e3 * median, "spread": middle_half(own) / median}
        ratio = {"time_ratio": statistics.median(ratios), "ratio_spread": middle_half(ratios)}
        rows.append({**columns, **row, **ratio})
    return rows


def measured(
    programs: Mapping[str, tuple[Callable, tuple]], rounds: Rounds, **columns: Any
) -> Rows:
    """Compiles programs and runs each once a round, in turn: the rows of `alternate` with

    - `mebibytes`, `memory_ratio`: temporary memory of the program, and divided by that of the
      first one (NaN if that needs none).
    - `compile_seconds`: tracing and compiling; see `timed_compile`.
    """
    compiled = {name: timed_compile(*program) for name, program in programs.items()}

    def turn(name: str) -> float:
        return seconds_of(lambda: compiled[name][0](*programs[name][1]))

    rows = alternate({x: lambda x=x: turn(x) for x in programs}, rounds, **columns)
    memory = {name: temporary_mebibytes(program) for name, (program, _) in compiled.items()}
    first = memory[next(iter(programs))]
    for row in rows:
        own = memory[row["name"]]
        row |= {"mebibytes": own, "memory_ratio": own / first if first else float("nan")}
        row["compile_seconds"] = compiled[row["name"]][1]
    return rows


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds until the arrays that some work returns are there."""
    began = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - began


def timed_compile(function: Callable, arguments: tuple) -> tuple[jax.stages.Compiled, float]:
    """A compiled function of arrays, and the seconds to trace and compile it. Nothing of it is
    cached, in memory or on disk."""
    jax.clear_caches()
    with _without_disk_cache():
        # The first program of a process would also pay for the start of the compiler.
        jax.jit(lambda x: x + 1).lower(0.0).compile()
        began = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        return compiled, time.perf_counter() - began


@contextlib.contextmanager
def _without_disk_cache() -> Iterator[None]:
    """Until it is left, programs are neither read from the disk nor kept there."""
    config: Any = jax.config  # whose settings are not declared
    before = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    # JAX looks at this setting only once, unless it is told to look again.
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def temporary_mebibytes(program: jax.stages.Compiled) -> float:
    """Memory that a compiled program needs besides its inputs and outputs."""
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20


def middle_half(values: list[float]) -> float:
    """The range of the middle half of some values, which are at least 2."""
    low, _, high = statistics.quantiles(values, n=4)
    return high - low
