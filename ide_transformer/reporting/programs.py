"""Cost of compiled programs: time, memory and compiling."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from .timing import alternate, check_rounds


class Measurement(NamedTuple):
    """The cost of one program, and its ratio to that of the first one measured.

    - `milliseconds`, `spread`, `time_ratio`, `ratio_spread`: see `Timing`.
    - `mebibytes`, `memory_ratio`: temporary memory of the program, and divided by the first's
      (NaN if that needs none).
    - `compile_seconds`: tracing and compiling.
    """

    milliseconds: float
    spread: float
    time_ratio: float
    ratio_spread: float
    mebibytes: float
    memory_ratio: float
    compile_seconds: float


def measure(
    programs: Mapping[str, tuple[Callable, tuple]],
    *,
    rounds: int,
    on_round: Callable[[int], Any] = lambda done: None,
) -> dict[str, Measurement]:
    """Runs each program once a round, in turn; see `alternate`.

    **Arguments:**

    - `programs`: name to (function of arrays, its arguments). The first is the reference.
    - `rounds`, `on_round`: see `alternate`.
    """
    check_rounds(rounds)
    compiled, compile_seconds = {}, {}
    for name, (function, arguments) in programs.items():
        began = time.perf_counter()
        compiled[name] = jax.jit(function).lower(*arguments).compile()
        compile_seconds[name] = time.perf_counter() - began

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


def compile_seconds(function: Callable, arguments: tuple) -> float:
    """The time to trace and compile a function of arrays. Nothing of it is cached."""
    jax.clear_caches()
    began = time.perf_counter()
    jax.jit(function).lower(*arguments).compile()
    return time.perf_counter() - began


def temporary_mebibytes(program: jax.stages.Compiled) -> float:
    """Memory that a compiled program needs besides its inputs and outputs."""
    analysis: Any = program.memory_analysis()
    return analysis.temp_size_in_bytes / 2**20
