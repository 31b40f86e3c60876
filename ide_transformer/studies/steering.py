"""A model steered to outputs that are drawn at random, and the energies that this takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from scipy.optimize import minimize

from .. import dynamics
from ..dynamics.march import March
from ..errors import InputError
from ..figures import literal, save_figure
from ..models import Model
from ..reporting import write_json
from ..training import load_model
from ..training.evaluation import at_least_one
from .depth_problem import make_problem


# How near the log-odds have to come, and the inputs that the general optimiser is tried on.
_NEAR, _OPTIMISED = 0.02, 8


def study_steering(
    path: str,
    folder: Path,
    *,
    probability: float,
    samples: int,
    tokens: int,
    iterations: int,
    trust: bool = False,
) -> dict[str, Any]:
    """Steers so many held-out inputs, of texts the first tokens, to outputs that are drawn at
    random, at a probability, by so many Gauss–Newton steps; writes `steering.json` and
    `steering.png` into `folder`. It compares the energies of pushes at all depths, of the best
    push in a single layer, and of what L-BFGS on an augmented Lagrangian finds from zero.
    `possible` counts the inputs for which some state was found that is read out so."""
    at_least_one("samples", samples)
    if not 0 < probability < 1:
        raise InputError(f"probability={probability}: give one between 0 and 1.")
    level = float(np.log(probability / (1 - probability)))
    loaded = load_model(path, trust=trust)
    model, inputs = loaded.model, make_problem(loaded, 1, samples).held_out
    of_texts = eqx.filter_eval_shape(model, inputs).ndim == 3
    inputs = inputs[:, :tokens] if of_texts else inputs

    def scores(outputs):
        return outputs[:, -1] if of_texts else outputs

    native = np.asarray(scores(model(inputs)))
    # Any but the most likely one.
    drawn = np.random.default_rng(0).integers(1, native.shape[1], len(native))
    targets = np.argsort(-native, axis=1)[np.arange(len(native)), drawn]

    def odds(outputs):
        return dynamics.log_odds(scores(outputs), targets)

    def steered(**where: Any) -> tuple[dynamics.Steering, np.ndarray]:
        found = dynamics.steer(model, inputs, odds, level, iterations=iterations, **where)
        return found, np.abs(found.reached - level) < _NEAR

    found, there = steered()
    if not there.any():
        raise InputError(
            f"{path}: no input comes to a probability of {probability}; give more "
            "--iterations, or a lower probability."
        )
    single = []
    for layer in range(model.control.num_intervals):
        alone, reached = steered(intervals=[layer])
        single.append(np.where(reached, alone.energy, np.inf))
    ratios = np.asarray(found.energy / np.min(single, axis=0))[there]
    above = []
    for i in np.flatnonzero(there)[:_OPTIMISED]:
        reached, target = float(found.reached[i]), int(targets[i])
        best = _optimum(model, inputs[i : i + 1], target, scores, reached)
        above.append(float(found.energy[i]) / best - 1)
    density = np.asarray(jnp.sum(found.pushes**2, axis=-1))
    share = (density / density.sum(axis=(0, 2), keepdims=True))[:, there].mean(axis=1)
    row = {
        "model": Path(path).name,
        "inputs": len(native),
        "possible": int(np.sum(there | (_most(model, inputs, odds) >= level))),
        "reached": int(there.sum()),
        "layers": len(single),
        **{f"ratio, {q} %": float(np.percentile(ratios, q)) for q in (5, 50, 95)},
        "at most a third": float(np.mean(ratios <= 1 / 3)),
        "above the optimiser": above,
        "best layer": np.bincount(np.argmin(single, axis=0), minlength=len(single)).tolist(),
        "share of each layer": share.sum(axis=1).tolist(),
    }
    write_json(folder / "steering.json", row)
    _draw(folder / "steering.png", row["model"], share)
    return row


@eqx.filter_jit
def _most(model: Model, inputs: Any, odds: Callable[[Any], Array]) -> Float[Array, " samples"]:
    """The largest log-odds that 400 steps of Adam find in end states, from random ones."""
    _, u0 = model.initial_value_problem(inputs)
    adam = optax.adam(0.05)

    def step(carry, _):
        u, state = carry
        slope = jax.grad(lambda u: -jnp.sum(odds(model.outputs(u))))(u)
        change, state = adam.update(slope, state)
        return (u + change, state), odds(model.outputs(u))

    u = 3 * jax.random.normal(jax.random.key(0), u0.shape, u0.dtype)
    return jnp.max(jax.lax.scan(step, (u, adam.init(u)), length=400)[1], axis=0)


def _optimum(model: Any, inputs: Any, target: int, scores: Any, level: float) -> float:
    """The least energy that L-BFGS finds."""
    march = March.of("steer", model, inputs)
    h, zeros = march.equation.control.interval_length, march.no_pushes

    @jax.jit
    @jax.value_and_grad
    def lagrangian(v, multiplier, penalty):
        off, energy = gap_and_energy(v)
        return 0.5 * energy + multiplier * off + 0.5 * penalty * off**2

    @jax.jit
    def gap_and_energy(v):
        pushes = v.reshape(zeros[1:].shape).astype(zeros.dtype)
        states = march.states(zeros.at[1:].set(h * pushes))
        off = dynamics.log_odds(scores(model.outputs(states[-1])), target)[0] - level
        return off, h * jnp.sum(pushes**2)

    def value(v, *given):
        found, slope = lagrangian(v, *given)
        return float(found), np.asarray(slope, float)

    v, multiplier, penalty = np.zeros(zeros[1:].size), 0.0, 1.0
    for _ in range(8):
        v = minimize(value, v, (multiplier, penalty), "L-BFGS-B", jac=True).x
        off, energy = map(float, gap_and_energy(v))
        multiplier, penalty = multiplier + penalty * off, 3 * penalty
        if abs(off) < 1e-3:
            break
    return energy


def _draw(path: Path, title: str, share: np.ndarray) -> None:
    """The mean shares of the energy over layers and tokens."""
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, aspect="auto", cmap="viridis", vmin=0)
    axes.set(title=literal(title), xlabel="token", ylabel="layer", yticks=range(len(share)))
    figure.colorbar(image, ax=axes, label="share of the energy")
    save_figure(figure, path)
