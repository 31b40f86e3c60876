"""Time and memory of alternatives that take turns."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from ide_transformer import InputError


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


class Measurement(NamedTuple):
    """The cost of a compiled program, with the fields of `Timing` and

    - `mebibytes`, `memory_ratio`: temporary memory of the program, and divided by that of the
      first one measured (NaN if that needs none).
    - `compile_seconds`: tracing and compiling; see `timed_compile`.
    """

    milliseconds: float
    spread: float
    time_ratio: float
    ratio_spread: float
    mebibytes: float
    memory_ratio: float
    compile_seconds: float


def alternate(
    turns: Mapping[str, Callable[[], float]],
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> dict[str, Timing]:
    """Takes each turn once a round, so that what disturbs the machine disturbs all."""
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


def measure(
    programs: Mapping[str, tuple[Callable, tuple]],
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> dict[str, Measurement]:
    """Compiles programs and runs each once a round, in turn; see `alternate`."""
    check_rounds(rounds)
    compiled, compile_seconds = {}, {}
    for name, (function, arguments) in programs.items():
        compiled[name], compile_seconds[name] = timed_compile(function, arguments)

    def turn(name: str) -> Callable[[], float]:
        def run() -> float:
            began = time.perf_counter()
            jax.block_until_ready(compiled[name](*programs[name][1]))
            return time.perf_counter() - began

        return run

    timings = alternate({n: turn(n) for n in programs}, rounds=rounds, on_round=on_round)
    memory = {name: temporary_mebibytes(program) for name, program in compiled.items()}
    first = memory[next(iter(programs))]
    return {
        name: Measurement(
            *timing,
            mebibytes=memory[name],
            memory_ratio=memory[name] / first if first else float("nan"),
            compile_seconds=compile_seconds[name],
        )
        for name, timing in timings.items()
    }


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


def check_rounds(rounds: int) -> None:
    """Refuse fewer than 2, with an `InputError`."""
    if rounds < 2:
        raise InputError(f"rounds={rounds}: a median with its spread needs at least 2.")


def middle_half(values: list[float]) -> float:
    """The range of the middle half of some values, which are at least 2."""
    low, _, high = statistics.quantiles(values, n=4)
    return high - low
