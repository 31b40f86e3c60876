"""Tests of emulators on trajectories of a scenario of APEBench.

A network maps functions `[channels, *points]` to the functions one step later. Errors are the
means over the test trajectories of the relative error in L2, after each step of a roll-out.
The true trajectories, `data`, are `[samples, steps, channels, *points]`.
"""

# APEBench is optional.
# pyright: reportMissingImports=false

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ide_transformer import Timed
from ide_transformer.contrib import ChannelsFirst


Row = dict[str, Any]
# Steps of the roll-out in the mean, and further steps for the statistics.
STEPS = 100
LONG = 1000
# What the error of a run that blew up counts as.
LARGEST = 1e6


def errors(network: Any, scenario: Any) -> list[float]:
    mean_errors = eqx.filter_jit(scenario.perform_test_rollout)(network)
    return np.asarray(mean_errors, float).tolist()


def errors_on(network: Any, data: Any, points: int) -> list[float]:
    """Errors on other points. The true functions are known between their points: they are sums
    of waves."""
    import exponax

    def resample(u: Any) -> Any:
        return exponax.map_between_resolutions(u, points)

    resampled = jax.jit(jax.vmap(jax.vmap(resample)))(data)
    return _errors(network, resampled[:, 0], resampled[:, 1:])


def errors_over(network: Any, scenario: Any, data: Any, duration: float) -> list[float]:
    """Errors with steps of another `duration`, in steps of the training. Only a model of this
    package is an equation, which can be solved over any time."""
    import exponax

    if not isinstance(network, ChannelsFirst):
        return []
    start = data[:, 0]
    solver = eqx.tree_at(lambda x: x.coarse_proportion, scenario, duration)
    march: Any = exponax.rollout(solver.get_coarse_stepper(), scenario.test_temporal_horizon)
    return _errors(_Longer(network.model, duration), start, jax.vmap(march)(start))


def mean_of(values: Any, duration: float = 1.0) -> float:
    """The geometric mean over a roll-out to the time of the first `STEPS` steps of the
    training."""
    return float(np.exp(np.mean(np.log(clip_errors(values)[: round(STEPS / duration)]))))


def clip_errors(values: Any) -> np.ndarray:
    """Clips errors to `LARGEST`, which also replaces NaN."""
    return np.nan_to_num(np.asarray(values, float), nan=LARGEST).clip(max=LARGEST)


def statistics(network: Any, scenario: Any, data: Any) -> Row:
    """Over `LONG` steps: trajectories that leave ten times the largest true value, the largest
    change of the mean of a function, and of the others two relative differences to the truth,
    of the energy of waves and of the autocorrelation over 0 to `STEPS` steps. `None` where all
    leave."""
    import exponax

    start = data[:, 0]
    marches: Any = [exponax.rollout(x, LONG) for x in (scenario.get_ref_stepper(), network)]
    truth, states = (np.asarray(eqx.filter_jit(jax.vmap(x))(start), float) for x in marches)
    size = np.nan_to_num(np.abs(states), nan=np.inf).max(axis=tuple(range(1, states.ndim)))
    stays = size < 10 * np.abs(truth).max()
    row: Row = {"blew_up_later": int((~stays).sum())}
    row |= dict.fromkeys(("mean_drift", "energy", "autocorrelation"))
    if not stays.any():
        return row
    truth, states = truth[stays], states[stays]
    points = tuple(range(3, states.ndim))
    before = np.asarray(start, float)[stays, None].mean(points)
    row["mean_drift"] = float(np.abs(states.mean(points) - before).max())
    row["energy"] = _difference(_energy(truth), _energy(states))
    row["autocorrelation"] = _difference(_autocorrelation(truth), _autocorrelation(states))
    return row


def seconds_of(network: Any, data: Any) -> float:
    """The seconds of one step of one function, the median of five roll-outs."""
    import exponax

    rollout: Any = exponax.rollout(network, STEPS)
    march = eqx.filter_jit(rollout)
    u = data[0, 0]
    seconds = []
    for _ in range(6):
        start_time = time.perf_counter()
        jax.block_until_ready(march(u))
        seconds.append(time.perf_counter() - start_time)
    return float(np.median(seconds[1:])) / STEPS


class CoarseSolver(eqx.Module):
    """The solver that made the data, on fewer points: the classical way to save time."""

    stepper: Any
    points: int = eqx.field(static=True)

    def __call__(self, u: Any) -> Any:
        import exponax

        coarse = exponax.map_between_resolutions(u, self.points)
        return exponax.map_between_resolutions(self.stepper(coarse), u.shape[-1])


def coarse_solver(scenario: Any, points: int) -> CoarseSolver:
    """The difficulties of a derivative of order j grow with the points to the power j."""
    ratio = points / scenario.num_points
    changes = {
        "num_points": points,
        "gammas": tuple(x * ratio**j for j, x in enumerate(scenario.gammas)),
    }
    if hasattr(scenario, "deltas"):
        changes["deltas"] = tuple(x * ratio**j for j, x in enumerate(scenario.deltas))
    elif hasattr(scenario, "convection_delta"):
        changes["convection_delta"] = scenario.convection_delta * ratio
    for name, value in changes.items():
        scenario = eqx.tree_at(lambda x, name=name: getattr(x, name), scenario, value)
    return CoarseSolver(scenario.get_ref_stepper(), points)


class _Longer(eqx.Module):
    """A model with an axis of channels, solved over another duration."""

    model: Any
    duration: float

    def __call__(self, u: Any) -> Any:
        outputs = self.model(Timed(jnp.moveaxis(u, 0, -1), self.duration))
        return jnp.moveaxis(outputs, -1, 0)


def _errors(network: Any, start: Any, truth: Any) -> list[float]:
    import exponax

    march: Any = exponax.rollout(network, truth.shape[1])
    states = eqx.filter_jit(jax.vmap(march))(start)
    each: Any = jax.vmap(jax.vmap(exponax.metrics.nRMSE))(states, truth)
    return np.asarray(each.mean(0), float).tolist()


def _energy(u: np.ndarray) -> np.ndarray:
    """The energy of each wave, its mean over trajectories and steps."""
    return (np.abs(np.fft.rfftn(u, axes=range(3, u.ndim))) ** 2).mean(axis=(0, 1, 2))


def _autocorrelation(u: np.ndarray) -> np.ndarray:
    """The autocorrelation over 0 to `STEPS` steps, its mean over trajectories."""
    u = u - u.mean()
    last = u.shape[1] - STEPS
    lags = [np.mean(u[:, :last] * u[:, lag : lag + last]) for lag in range(STEPS + 1)]
    return np.array(lags) / lags[0]


def _difference(truth: np.ndarray, states: np.ndarray) -> float:
    return float(np.abs(states - truth).sum() / np.abs(truth).sum())
