"""Walks through windows of layers in damped steps, and measures which window helps."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, PyTree

from ide_transformer.arguments import PositiveInt, checked
from ide_transformer.compare import standard_error
from ide_transformer.contrib.depth_problem import Losses, make_problem
from ide_transformer.dynamics import March
from ide_transformer.equation import State
from ide_transformer.models import Model
from ide_transformer.reporting import Report, Terminal
from ide_transformer.training import LoadedModel


# Candidates by which the logits are divided.
TEMPERATURES = tuple(np.exp(np.linspace(-1, 1, 41)).tolist())


def best_temperature(losses: Sequence[float] | np.ndarray) -> float:
    """The temperature with the lowest loss; `losses` has one for each of `TEMPERATURES`."""
    return TEMPERATURES[int(np.nanargmin(losses))]


class Walk(NamedTuple):
    """A walk through a window of layers. With the native steps G through the window and
    `F(u) = G(u) - u`, K steps of size h = α/K lead from u to v,

        Euler:  u ← u + h F(u),
        Heun:   u ← u + h/2 (F(u) + F(u + h F(u))),

    and the window ends at `β G(u) + (1 - β) v`. The damped sub-steps of Chen et al., arXiv
    2605.23872, have α = 1; their anchored sub-steps also β = 1/2, as others implemented them.
    With α = K and β = 0 the window is repeated.

    - `steps`, `length`, `anchor`: K, α and β.
    - `heun`: whether to use Heun instead of Euler.
    - `by_layer`: whether to walk through each layer of the window separately.
    """

    steps: int
    length: float = 1.0
    anchor: float = 0.0
    heun: bool = False
    by_layer: bool = False

    def evaluations(self, layers: int, window: int) -> int:
        """Evaluations of layers in total; an anchored walk begins with G(u)."""
        return layers + window * (self.steps * (1 + self.heun) - 1)


def walks(steps: int) -> dict[str, Walk]:
    """The walks of the study; `repeated` is a control."""
    return {
        "damped": Walk(steps),
        "damped by layer": Walk(steps, by_layer=True),
        "anchored": Walk(steps, anchor=0.5),
        "Heun": Walk(steps, heun=True),
        "repeated": Walk(steps, length=steps),
    }


@eqx.filter_jit
def walked_state(
    model: Model, inputs: PyTree[ArrayLike], first: ArrayLike, end: ArrayLike, walk: Walk
) -> State:
    """The state at depth T with a walk through the layers `first` … `end - 1`. If both are
    arrays, all windows share a compiled program."""
    march = March.of("walked_state", model, inputs)
    equation = march.equation
    weights = equation.intervals()
    step = walk.length / walk.steps

    def apply_layer(n: Array, u: Array) -> Array:
        layer_weights = jax.tree.map(lambda x: x[n], weights)
        index = n.astype(u.dtype)
        start = index * equation.control.interval_length
        return march.advance(equation.interval_terms(index, layer_weights), start, u)

    def apply_layers(first: ArrayLike, end: ArrayLike, u: Array) -> Array:
        return lax.fori_loop(jnp.asarray(first), jnp.asarray(end), apply_layer, u)

    def walk_layers(first: ArrayLike, end: ArrayLike, u: Array) -> Array:
        def field(u: Array) -> Array:
            return apply_layers(first, end, u) - u

        def advance(_, v: Array) -> Array:
            slope = field(v)
            if walk.heun:
                slope = (slope + field(v + step * slope)) / 2
            return v + step * slope

        v = lax.fori_loop(0, walk.steps, advance, u)
        if not walk.anchor:
            return v
        return walk.anchor * apply_layers(first, end, u) + (1 - walk.anchor) * v

    u = apply_layers(0, first, march.u0)
    if walk.by_layer:
        u = lax.fori_loop(
            jnp.asarray(first), jnp.asarray(end), lambda n, u: walk_layers(n, n + 1, u), u
        )
    else:
        u = walk_layers(first, end, u)
    return apply_layers(end, equation.control.layers, u)


@checked
def study_windows(
    loaded: LoadedModel,
    *,
    steps: PositiveInt,
    calibration: PositiveInt = 128,
    held_out: PositiveInt = 128,
    text: str | None = None,
) -> Report:
    """Measures walks through windows of layers of a model.

    For each of `walks(steps)`, the window with the least loss on calibration samples is
    measured on held-out samples. Controls: a random window of this size (`random`, the mean
    over all others), and a temperature that divides the outputs, fitted on calibration samples
    for the native model and for the window. `text`: see `make_problem`.
    """
    model = loaded.model.ordinary
    problem = make_problem(loaded, calibration, held_out, text=text)
    choose_by = problem.require_calibration_losses(str(loaded.path))
    say = Terminal().print

    def losses_on(inputs: PyTree[ArrayLike], losses: Losses) -> Callable[..., np.ndarray]:
        read = eqx.filter_jit(lambda model, u, t: losses(model.outputs(u, inputs) / t))

        def walk_losses(
            first: int, end: int, walk: Walk, temperatures: Sequence[float] = (1.0,)
        ) -> np.ndarray:
            """`[temperatures, samples]`."""
            u = walked_state(model, inputs, jnp.asarray(first), jnp.asarray(end), walk)
            return np.array([read(model, u, jnp.asarray(t, u.dtype)) for t in temperatures])

        return walk_losses

    calibration_losses = losses_on(problem.calibration, choose_by)
    held_out_losses = losses_on(problem.held_out, problem.losses)

    def fit_temperature(*window: Any) -> float:
        return best_temperature(np.mean(calibration_losses(*window, TEMPERATURES), axis=1))

    plain = 0, 1, Walk(1)
    (native,) = held_out_losses(*plain)
    (native_cooled,) = held_out_losses(*plain, [fit_temperature(*plain)])
    windows = list(itertools.combinations(range(model.layers + 1), 2))
    rows = []
    for name, walk in walks(steps).items():
        scores = [float(np.mean(calibration_losses(*window, walk))) for window in windows]
        first, end = windows[int(np.nanargmin(scores))]
        size = end - first
        temperature = fit_temperature(first, end, walk)
        losses, cooled = held_out_losses(first, end, walk, [1.0, temperature])
        random = [
            np.mean(held_out_losses(*window, walk) - native)
            for window in windows
            if window[1] - window[0] == size and window != (first, end)
        ]
        change = losses - native
        cooled_change = cooled - native_cooled
        rows.append(
            {
                "walk": name,
                "layers": f"{first}–{end - 1}",
                "evaluations": walk.evaluations(model.layers, size),
                "calibration_loss": min(scores),
                "loss": float(np.mean(losses)),
                "change": float(np.mean(change)),
                "uncertainty": standard_error(change),
                "random": float(np.mean(random)) if random else None,
                "temperature": temperature,
                "cooled_change": float(np.mean(cooled_change)),
                "cooled_uncertainty": standard_error(cooled_change),
            }
        )
        say(f"{name}: layers {first} to {end - 1}")
    return Report(
        f"windows of {loaded.path.name}",
        f"Windows of layers of {loaded.path} walked in {steps} steps. The best of "
        f"{len(windows)} by the loss ({problem.loss}) on {calibration} samples is measured on "
        f"{held_out} others. The native loss is {np.mean(native):.4f}. Uncertainties are "
        "standard errors.",
        rows,
        {
            "change": "change of the loss",
            "random": "mean change of other windows of its size",
            "temperature": "fitted temperature",
            "cooled_change": "change at fitted temperatures",
            "cooled_uncertainty": "its uncertainty",
        },
    )
