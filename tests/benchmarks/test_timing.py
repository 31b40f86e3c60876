"""Alternatives that take turns."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.shared.timing import alternate, measure, timed_compile
from ide_transformer import InputError


def test_measure_sees_what_costs_more():
    x = np.ones((400, 400))

    def once(x):
        return x @ x

    def many(x):
        for _ in range(20):
            x = 0.1 * (x @ x)
        return x

    rounds = []
    found = measure(
        {"once": (once, (x,)), "many": (many, (x,))}, rounds=3, on_round=rounds.append
    )
    assert rounds == [0, 1, 2, 3]
    assert found["once"].time_ratio == 1 and found["once"].milliseconds > 0
    assert found["many"].milliseconds > found["once"].milliseconds
    assert found["many"].mebibytes >= 400 * 400 * 8 / 2**20 > found["once"].mebibytes


def test_turns_are_taken_once_a_round_and_the_first_round_does_not_count():
    seconds = {"a": iter([9.0, 1.0, 2.0, 3.0]), "b": iter([0.0, 4.0, 4.0, 6.0])}
    turns = {name: lambda given=given: next(given) for name, given in seconds.items()}
    found = alternate(turns, rounds=3)
    assert (found["a"].milliseconds, found["b"].milliseconds) == (2000, 4000)
    assert (found["a"].spread, found["b"].time_ratio) == (1.0, 2.0)
    with pytest.raises(InputError, match="rounds=1"):
        alternate(turns, rounds=1)


@pytest.fixture
def disk_cache(tmp_path):
    """An empty folder in which JAX keeps every program that it compiles."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    compilation_cache.reset_cache()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def test_what_is_timed_is_compiled_and_not_read_from_the_disk(disk_cache):
    def function(x):
        return 3 * x + 1

    x = np.ones(3)
    compiled, seconds = timed_compile(function, (x,))
    measured = measure({"it": (function, (x,))}, rounds=2)["it"].compile_seconds
    assert (compiled(x) == 4).all() and seconds > 0 and measured > 0
    assert not list(disk_cache.glob("jit_function*"))
    jax.clear_caches()
    jax.jit(function).lower(x).compile()
    assert list(disk_cache.glob("jit_function*"))
