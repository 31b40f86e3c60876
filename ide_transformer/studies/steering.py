"""A model steered to outputs that are drawn at random, and the energies that this takes."""

import functools as ft
from pathlib import Path
from typing import Any, NamedTuple

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
from ..models import AbstractClassifier, LanguageModel, Model
from ..reporting import write_json
from ..training import LoadedModel, load_model
from ..training.measure.evaluation import at_least_one
from .depth_problem import make_problem


# How near the log-odds have to come, and the inputs that the general optimiser is tried on.
_NEAR = 0.02
_OPTIMISED = 8


class Aim(NamedTuple):
    """Inputs of a model, and the class or next token to which each is steered."""

    model: Model
    inputs: Any
    targets: np.ndarray

    @classmethod
    def drawn(cls, loaded: LoadedModel, samples: int, tokens: int | None) -> "Aim":
        """Held-out samples, of texts the first tokens, and any but the most likely output."""
        model = loaded.model
        if not isinstance(model.read_out, AbstractClassifier):
            loaded.expected(LanguageModel, "; one is steered to a class or to the next token")
        inputs = make_problem(loaded, 1, samples).held_out
        if eqx.filter_eval_shape(model, inputs).ndim == 3:
            inputs = inputs[:, : 16 if tokens is None else tokens]
        elif tokens is not None:
            raise InputError(
                f"tokens={tokens}: {loaded.path} is steered to a class of whole samples; drop "
                "it."
            )
        logits = np.asarray(_last(model(inputs)))
        drawn = np.random.default_rng(0).integers(1, logits.shape[1], len(logits))
        return cls(model, inputs, np.argsort(-logits, axis=1)[np.arange(len(logits)), drawn])

    def odds(self, outputs: Array) -> Float[Array, " samples"]:
        return dynamics.log_odds(_last(outputs), self.targets)


def _last(outputs: Array) -> Float[Array, "samples outputs"]:
    """The scores of a class, or of the token after the last one."""
    return outputs[:, -1] if outputs.ndim == 3 else outputs


def study_steering(
    path: str,
    folder: Path,
    *,
    probability: float,
    samples: int,
    tokens: int | None = None,
    iterations: int = 40,
    trust: bool = False,
) -> dict[str, Any]:
    """Steers so many held-out inputs, of texts the first tokens, to outputs that are drawn at
    random, at a probability, by so many Gauss–Newton steps; writes `steering.json` and
    `steering.png` into `folder`. It compares the energies of pushes at all depths, of the best
    push in a single layer, and of what L-BFGS on an augmented Lagrangian finds from zero.
    `best layer` counts the inputs that a push in one layer steers there, by layer, of which
    are the ratios of both energies, and `possible` those for which some state was found that
    is read out so."""
    at_least_one("samples", samples)
    at_least_one("iterations", iterations)
    at_least_one("tokens", tokens)
    if not 0 < probability < 1:
        raise InputError(f"probability={probability}: give one between 0 and 1.")
    level = float(np.log(probability / (1 - probability)))
    aim = Aim.drawn(load_model(path, trust=trust), samples, tokens)

    def steered(**where: Any) -> tuple[dynamics.Steering, np.ndarray]:
        found = dynamics.steer(
            aim.model, aim.inputs, aim.odds, level, iterations=iterations, **where
        )
        return found, np.abs(found.reached - level) < _NEAR

    found, there = steered()
    layers = range(aim.model.layers)
    alone = [steered(intervals=[layer]) for layer in layers]
    single = np.stack([np.where(reached, x.energy, np.inf) for x, reached in alone])
    one = np.isfinite(single.min(axis=0))
    ratios = np.asarray(found.energy / single.min(axis=0))[there & one]
    if not ratios.size:
        raise InputError(
            f"{path}: no input comes to a probability of {probability} both by pushes in all "
            "layers and by a push in one; give more --iterations, or a lower probability."
        )
    tried = np.flatnonzero(there)[:_OPTIMISED].tolist()
    least = []
    for i in tried:
        sample = jax.tree.map(lambda x: x[i : i + 1], (aim.inputs, aim.targets))  # noqa: B023
        least.append(_optimum(Aim(aim.model, *sample), float(found.reached[i])))
    density = np.asarray(jnp.sum(found.pushes**2, axis=-1))
    share = (density / density.sum(axis=(0, 2), keepdims=True))[:, there].mean(axis=1)
    row = {
        "model": Path(path).name,
        "inputs": len(there),
        "possible": int(np.sum(there | (_most(aim) >= level))),
        "reached": int(there.sum()),
        "layers": len(layers),
        **{f"ratio, {q} %": float(np.percentile(ratios, q)) for q in (5, 50, 95)},
        "at most a third": float(np.mean(ratios <= 1 / 3)),
        "above the optimiser": (np.asarray(found.energy)[tried] / least - 1).tolist(),
        "best layer": [int(np.sum((single.argmin(axis=0) == n) & one)) for n in layers],
        "share of each layer": share.sum(axis=1).tolist(),
    }
    write_json(folder / "steering.json", row)
    figure = Figure(figsize=(3.6, 3.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(share, aspect="auto", cmap="viridis", vmin=0)
    title = literal(row["model"])
    axes.set(title=title, xlabel="token", ylabel="layer", yticks=range(len(share)))
    figure.colorbar(image, ax=axes, label="share of the energy")
    save_figure(figure, folder / "steering.png")
    return row


@eqx.filter_jit
def _most(aim: Aim) -> Float[Array, " samples"]:
    """The largest log-odds that 400 steps of Adam find in end states, from random ones."""
    _, u0 = aim.model.initial_value_problem(aim.inputs)
    adam = optax.adam(0.05)

    def value(u):
        odds = aim.odds(aim.model.outputs(u))
        return -jnp.sum(odds), odds

    def step(carry, _):
        u, state = carry
        slope, odds = jax.grad(value, has_aux=True)(u)
        change, state = adam.update(slope, state)
        return (u + change, state), odds

    u = 3 * jax.random.normal(jax.random.key(0), u0.shape, u0.dtype)
    return jnp.max(jax.lax.scan(step, (u, adam.init(u)), length=400)[1], axis=0)


def _optimum(aim: Aim, level: float) -> float:
    """The least energy that L-BFGS finds for one sample."""
    march = March.of("steer", aim.model, aim.inputs)
    h = march.equation.control.interval_length
    zeros = march.no_pushes

    @jax.jit
    @ft.partial(jax.value_and_grad, has_aux=True)
    def lagrangian(v, multiplier, penalty):
        """Its value and slope, how far the log-odds are off, and the energy."""
        pushes = v.reshape(zeros[1:].shape).astype(zeros.dtype)
        states = march.states(zeros.at[1:].set(h * pushes))
        off = aim.odds(aim.model.outputs(states[-1]))[0] - level
        energy = h * jnp.sum(pushes**2)
        value = 0.5 * energy + multiplier * off + 0.5 * penalty * off**2
        return value, (off, energy)

    def value(v, *given):
        (found, _), slope = lagrangian(v, *given)
        return float(found), np.asarray(slope, float)

    v = np.zeros(zeros[1:].size)
    multiplier = 0.0
    penalty = 1.0
    for _ in range(8):
        v = minimize(value, v, (multiplier, penalty), "L-BFGS-B", jac=True).x
        (_, (off, energy)), _ = lagrangian(v, multiplier, penalty)
        multiplier += penalty * float(off)
        penalty *= 3
        if abs(off) < 1e-3:
            break
    return float(energy)
