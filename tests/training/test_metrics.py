"""The log of a run."""

import contextlib
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer.training.metrics import MetricsLog


def _slow(x):
    time.sleep(0.05)
    return np.asarray(x)


@pytest.mark.parametrize("waits", [True, False])
def test_every_window_has_its_own_rate(waits):
    """Whether the device works while the host goes on, or the host waits for each step."""

    @jax.jit
    def step(x):
        return jax.pure_callback(_slow, jax.ShapeDtypeStruct((), x.dtype), x) + 1

    x, lines, ends = step(jnp.zeros(())), [], []
    jax.block_until_ready(x)
    log = MetricsLog([], lines.append, time.perf_counter())
    with contextlib.closing(log):
        log.restart_clock()
        began = time.perf_counter()
        for number in range(1, 13):
            x = step(x)
            log.count(10)
            if waits:
                jax.block_until_ready(x)
                ends.append(time.perf_counter())
            if number % 4 == 0:
                log.train(number, {"loss": x, "bad_steps_in_a_row": 0})
        log.flush()
    rates = [line["tokens_per_second"] for line in lines]
    if waits:
        expected = 40 / np.diff([began, *ends[3::4]])
    else:
        expected = 120 / (time.perf_counter() - began)
    assert np.allclose(rates, expected, rtol=0.5), (rates, expected)
