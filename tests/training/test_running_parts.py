"""Batches that are made ahead, and the rate in the log."""

import contextlib
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer.training.metrics import MetricsLog
from ide_transformer.training.run import prefetched


def test_values_are_made_ahead_and_in_order():
    made, ahead, before = [], threading.Semaphore(0), threading.active_count()

    def make(number):
        made.append((number, threading.current_thread()))
        ahead.release()
        return number**2

    with prefetched(make, 3, 9, ahead=2) as values:
        assert not made
        assert next(values) == 9
        for _ in range(3):  # the one in use, and two more
            assert ahead.acquire(timeout=60)
        assert not ahead.acquire(timeout=0.05)
        assert list(values) == [16, 25, 36, 49, 64]
    assert [number for number, _ in made] == [3, 4, 5, 6, 7, 8]
    assert all(thread is not threading.main_thread() for _, thread in made)
    assert threading.active_count() == before


def test_an_error_is_raised_where_its_value_is_asked_for():
    before = threading.active_count()
    with prefetched(lambda n: 1 // (2 - n), 0, 10**9) as values:
        assert [next(values), next(values)] == [0, 1]
        with pytest.raises(ZeroDivisionError):
            next(values)
    assert threading.active_count() == before


@pytest.mark.parametrize("waits", [True, False])
def test_every_window_has_its_own_rate(waits):
    """Whether the device works while the host goes on, or the host waits for each step. In one
    of five tries, since another process may stop this one between a step and its log."""
    for _ in range(5):
        rates, expected = rates_of_windows(waits)
        if np.allclose(rates, expected, rtol=0.5):
            return
    raise AssertionError((rates, expected))


def rates_of_windows(waits):
    """Those that a log says, and those by the ends of the steps."""
    lines, ends = [], []

    def slow(x):
        time.sleep(0.05)
        ends.append(time.perf_counter())
        return np.asarray(x)

    @jax.jit
    def step(x):
        return jax.pure_callback(slow, jax.ShapeDtypeStruct((), x.dtype), x) + 1

    x = jax.block_until_ready(step(jnp.zeros(())))
    ends[:] = [time.perf_counter()]
    with contextlib.closing(MetricsLog([], lines.append, ends[0])) as log:
        for number in range(1, 13):
            x = step(x)
            log.count(10)
            if waits:
                jax.block_until_ready(x)
            if number % 4 == 0:
                log.train(number, {"loss": x, "bad_steps_in_a_row": 0})
        log.flush()
    return [line["tokens_per_second"] for line in lines], 40 / np.diff(ends[::4])
