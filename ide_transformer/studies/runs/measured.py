"""Measures of the models of runs over depth."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ...equation import AbstractControl, AbstractExpansion, parts
from ...models import Model
from ...training import DepthProfile, depth_profile, load_run, run_task
from .attempts import Attempts, step_attempts
from .record import RunRecord


# Held-out samples that are solved.
SAMPLES = 16


class Measured(NamedTuple):
    """The model of the newest checkpoint of a run on some held-out samples.

    - `loss_label`: of its task.
    - `profile`: norms along the solution.
    - `weights`: root mean squares of θ(t) in the middle of each interval, `[intervals]`.
    - `coefficients`: root mean squares of the coefficients Θ_k of a control
      `θ(t) = Σ_k φ_k(t) Θ_k`, `[terms]`; `None` for a control that is no such sum.
    - `attempts`: the steps of an adaptive solve; `None` where steps are equal.
    """

    loss_label: str
    profile: DepthProfile
    weights: np.ndarray
    coefficients: np.ndarray | None
    attempts: Attempts | None


def measure(run: RunRecord) -> Measured:
    """Loads the model of a run and solves some held-out samples.

    **Raises:** `InputError` where it has no checkpoint, or its data are not there any more
    or have changed.
    """
    model, _ = load_run(run.folder.path, trust=True)
    task = run_task(run.folder, trust=True)
    inputs = next(task.held_out(SAMPLES)).inputs
    expansion = next(iter(parts(model.control, AbstractExpansion)), None)
    return Measured(
        loss_label=task.loss.label,
        profile=depth_profile(model, inputs),
        weights=_weights(model),
        coefficients=None if expansion is None else _coefficients(expansion),
        attempts=step_attempts(model, inputs),
    )


def _weights(model: Model) -> np.ndarray:
    control: AbstractControl = model.control
    middles = (jnp.arange(control.num_intervals) + 0.5) * control.interval_length
    return np.asarray(jax.lax.map(lambda t: _rms(control(t)), middles))


def _coefficients(expansion: AbstractExpansion) -> np.ndarray:
    return np.asarray(jax.lax.map(_rms, eqx.filter(expansion.coefficients, eqx.is_array)))


def _rms(tree: PyTree) -> jax.Array:
    """The root mean square over all weights of a tree."""
    leaves = [x for x in jax.tree.leaves(tree) if eqx.is_inexact_array(x)]
    total = sum(jnp.sum(x**2) for x in leaves)
    return jnp.sqrt(total / max(sum(x.size for x in leaves), 1))
