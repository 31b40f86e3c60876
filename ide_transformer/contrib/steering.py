"""Steers a model to chosen outputs, and measures the energy this takes."""

import functools as ft
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from ide_transformer.arguments import PositiveInt, checked, is_known
from ide_transformer.contrib.depth_problem import make_problem
from ide_transformer.dynamics import March
from ide_transformer.errors import InputError
from ide_transformer.figures import literal, save_figure
from ide_transformer.models import AbstractClassifier, LanguageModel, Model
from ide_transformer.reporting import write_json
from ide_transformer.training import LoadedModel, load_model


# From outputs to a number for each sample.
Judged = Callable[[PyTree[Array]], Float[Array, "..."]]
# The fractions of a step that are tried; the last is the correction alone.
_SIZES = (*(0.5**k for k in range(8)), 0.0)
# The most energy of pushes, in energies of the states.
_LARGEST = 100


class Steering(NamedTuple):
    """Pushes that steer a solve, for each sample.

    - `pushes`: v, `[L, *batch, tokens, features]`: `u_t = Σ_i A_i(u; θ(t)) + v_l` in interval
      l, as `h v_l` after its steps.
    - `energy`: `Σ_l h |v_l|²`, `[*batch]`.
    - `reached`: the value g that is reached, `[*batch]`.
    """

    pushes: Float[Array, "intervals *batch tokens features"]
    energy: Float[Array, "*batch"]
    reached: Float[Array, "*batch"]


def steer(
    model: Model,
    inputs: PyTree[ArrayLike],
    judged: Judged,
    level: float,
    *,
    intervals: Sequence[int] | None = None,
    iterations: PositiveInt = 40,
) -> Steering:
    """The pushes v of least energy that bring a value g of the outputs to a level,

        min_v ½ Σ_l h |v_l|²,   g(outputs(v)) = level,

    by Gauss–Newton steps. The costates linearise g, `g(v) + Σ_l h ⟨p_l, δ_l⟩`, and the step of
    least energy is along them, `v_l = λ p_l`. Of halved steps, each corrected along the
    costates by the distance of its g from the level, the one with the least
    `½ Σ_l h |v_l|² + 2 |λ| |g - level|` is taken. In the first half of the steps the level
    moves evenly from g(0) to its value, so that pushes stay small.

    Reference for the second-order correction: Fletcher, *Second order corrections for
    non-differentiable optimization*, 1982.

    **Arguments:**

    - `judged`: from the outputs to g, `[*batch]`; best nearly linear, such as `log_odds`.
    - `level`: the value of g. If no state gives it, pushes stay below ten times the size of the
      states, and `reached` is another value.
    - `intervals`: the intervals in which v acts; default: all.

    **Raises:** `InputError` for unknown intervals, adaptive steps, and a scheme that carries
    something from interval to interval.
    """
    number = model.layers
    chosen = range(number) if intervals is None else intervals
    if not len(chosen) or not set(chosen) <= set(range(number)):
        raise InputError(
            f"steer: intervals={list(chosen)} must be some of 0 to {number - 1}, one at least."
        )
    acts = jnp.zeros(number).at[jnp.array(list(chosen))].set(1.0)
    return _steered(model, inputs, judged, jnp.asarray(level), acts, iterations)


@eqx.filter_jit
def _steered(model, inputs, judged, level, acts, iterations) -> Steering:
    march = March.of("steer", model, inputs)
    h = march.equation.control.interval_length
    zeros = march.no_pushes
    acts = acts.astype(zeros.dtype).reshape(-1, *[1] * (zeros.ndim - 1))
    sizes = jnp.array(_SIZES, zeros.dtype)

    def total(v):
        found = judged(model.outputs(march.states(zeros.at[1:].set(h * acts * v))[-1]))
        return jnp.sum(found), found

    def dot(v, w):
        return h * jnp.sum(v * w, axis=(0, -2, -1))

    native = total(zeros[1:])[1]
    states = march.states(zeros)[1:]
    largest = _LARGEST * dot(states, states)

    def step(v, share):
        wanted = native + share * (level.astype(zeros.dtype) - native)
        slope, value = jax.grad(total, has_aux=True)(v)
        costate = slope / h
        square = dot(costate, costate)
        square = jnp.where(square > 0, square, 1.0)
        multiplier = (wanted - value + dot(costate, v)) / square
        change = multiplier[None, ..., None, None] * costate - v

        def tried(size):
            pushed = v + size * change
            correction = (wanted - total(pushed)[1]) / square
            pushed += correction[None, ..., None, None] * costate
            energy = dot(pushed, pushed)
            merit = 0.5 * energy + 2 * jnp.abs(multiplier * (total(pushed)[1] - wanted))
            return pushed, jnp.where(energy < largest, merit, jnp.inf)

        pushes, merits = jax.lax.map(tried, sizes)
        best = jnp.argmin(merits, axis=0)
        found = jnp.take_along_axis(pushes, best[None, None, ..., None, None], axis=0)[0]
        small = jnp.min(merits, axis=0) < jnp.inf
        return jnp.where(small[None, ..., None, None], found, v), None

    shares = jnp.minimum(2 * jnp.arange(1, iterations + 1) / iterations, 1.0)
    v, _ = jax.lax.scan(step, zeros[1:], shares.astype(zeros.dtype))
    return Steering(v, dot(v, v), total(v)[1])


def log_odds(
    logits: Float[Array, "*batch classes"], target: ArrayLike
) -> Float[Array, "*batch"]:
    """`log p/(1 - p)` of a class or token, 2.197 for p = 0.9. `target`: one for all samples, or
    one for each."""
    classes = logits.shape[-1]
    if is_known(target) and not (np.min(target) >= 0 and np.max(target) < classes):
        raise InputError(
            f"log_odds: target={np.asarray(target).tolist()}: there are {classes} classes; "
            f"give 0 to {classes - 1}."
        )
    chosen = jnp.broadcast_to(jax.nn.one_hot(target, classes, dtype=bool), logits.shape)
    one, others = (
        jax.nn.logsumexp(jnp.where(where, logits, -jnp.inf), axis=-1)
        for where in (chosen, ~chosen)
    )
    return one - others


# How near the log-odds have to come, and the inputs the general optimiser is tried on.
_NEAR = 0.02
_OPTIMISED = 8


class Aim(NamedTuple):
    """Inputs of a model, and the class or next token that each is steered to."""

    model: Model
    inputs: Any
    targets: np.ndarray

    @classmethod
    def drawn(cls, loaded: LoadedModel, samples: int, tokens: int | None) -> "Aim":
        """Held-out samples (the first tokens of texts), and outputs that are not the most
        likely, drawn at random."""
        model = loaded.model
        if not isinstance(model.read_out, AbstractClassifier):
            loaded.expected(LanguageModel, "; one is steered to a class or to the next token")
        inputs = make_problem(loaded, 1, samples).held_out
        if eqx.filter_eval_shape(model, inputs).ndim == 3:
            inputs = inputs[:, : 16 if tokens is None else tokens]
        elif tokens is not None:
            raise InputError(
                f"tokens={tokens}: {loaded.path} classifies whole samples; drop it."
            )
        logits = np.asarray(_last(model(inputs)))
        drawn = np.random.default_rng(0).integers(1, logits.shape[1], len(logits))
        return cls(model, inputs, np.argsort(-logits, axis=1)[np.arange(len(logits)), drawn])

    def odds(self, outputs: Array) -> Float[Array, " samples"]:
        return log_odds(_last(outputs), self.targets)


def _last(outputs: Array) -> Float[Array, "samples outputs"]:
    """The scores of a class, or of the token after the last."""
    return outputs[:, -1] if outputs.ndim == 3 else outputs


@checked
def study_steering(
    path: str,
    folder: Path,
    *,
    probability: float,
    samples: PositiveInt,
    tokens: PositiveInt | None = None,
    iterations: PositiveInt = 40,
    trust: bool = False,
) -> dict[str, Any]:
    """Steers held-out inputs to outputs drawn at random, at a probability, and writes
    `steering.json` and `steering.png` into `folder`. Compares the energies of pushes in all
    layers, of the best push in one layer, and of what L-BFGS on an augmented Lagrangian finds
    from zero. The ratio of the first two is over inputs that both reach; `best layer` counts
    the inputs by their best layer, and `possible` the inputs for which some state gives the
    output."""
    if not 0 < probability < 1:
        raise InputError(f"probability={probability}: give one between 0 and 1.")
    level = float(np.log(probability / (1 - probability)))
    aim = Aim.drawn(load_model(path, trust=trust), samples, tokens)

    def steered(**where: Any) -> tuple[Steering, np.ndarray]:
        found = steer(aim.model, aim.inputs, aim.odds, level, iterations=iterations, **where)
        return found, np.abs(found.reached - level) < _NEAR

    found, there = steered()
    layers = range(aim.model.layers)
    alone = [steered(intervals=[layer]) for layer in layers]
    single = np.stack([np.where(reached, x.energy, np.inf) for x, reached in alone])
    one = np.isfinite(single.min(axis=0))
    ratios = np.asarray(found.energy / single.min(axis=0))[there & one]
    if not ratios.size:
        raise InputError(
            f"{path}: no input reaches a probability of {probability} by pushes in all layers "
            "and by a push in one; give more --iterations, or a lower probability."
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
    from matplotlib.figure import Figure

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
    """The largest log-odds that 400 steps of Adam find from random end states."""
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
    from scipy import optimize

    march = March.of("steer", aim.model, aim.inputs)
    h = march.equation.control.interval_length
    zeros = march.no_pushes

    @jax.jit
    @ft.partial(jax.value_and_grad, has_aux=True)
    def lagrangian(v, multiplier, penalty):
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
        v = optimize.minimize(value, v, (multiplier, penalty), "L-BFGS-B", jac=True).x
        (_, (off, energy)), _ = lagrangian(v, multiplier, penalty)
        multiplier += penalty * float(off)
        penalty *= 3
        if abs(off) < 1e-3:
            break
    return float(energy)
