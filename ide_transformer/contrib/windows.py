"""Walks a window of layers in several damped steps, and measures which window helps."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
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
from ide_transformer.errors import InputError
from ide_transformer.models import Model
from ide_transformer.reporting import Report, Terminal
from ide_transformer.training import load_model


# By which the logits are divided.
TEMPERATURES = tuple(np.exp(np.linspace(-1, 1, 41)).tolist())


def best_temperature(losses: Sequence[float] | np.ndarray) -> float:
    """The temperature with the lowest of the `losses`, one for each of `TEMPERATURES`."""
    return TEMPERATURES[int(np.nanargmin(losses))]


class Walk(NamedTuple):
    """How a window of layers is walked. With G the native steps through the window and
    `F(u) = G(u) - u`, `steps` K of size h = α/K go from u to v,

        Euler:  u ← u + h F(u),
        Heun:   u ← u + h/2 (F(u) + F(u + h F(u))),

    and the window ends at `β G(u) + (1 - β) v`. The damped sub-steps of Chen et al., arXiv
    2605.23872, have α = 1, their anchored ones β = 1/2 (as others implemented them). With α = K
    and β = 0 the window is repeated.

    - `steps`, `length`, `anchor`: K, α and β.
    - `heun`: Heun instead of Euler.
    - `by_layer`: every layer of the window is walked by itself.
    """

    steps: int
    length: float = 1.0
    anchor: float = 0.0
    heun: bool = False
    by_layer: bool = False

    def evaluations(self, layers: int, window: int) -> int:
        """Evaluations of layers in all; an anchored walk begins with G(u)."""
        return layers + window * (self.steps * (1 + self.heun) - 1)


def walks(steps: int) -> dict[str, Walk]:
    """The walks that are compared, `repeated` as a control."""
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
    """The state at depth T when the layers `first` … `end - 1` are walked so. As arrays, other
    layers need no other program."""
    march = March.of("walked_state", model, inputs)
    equation = march.equation
    weights = equation.intervals()
    step = walk.length / walk.steps

    def layer(n: Array, u: Array) -> Array:
        own = jax.tree.map(lambda x: x[n], weights)
        index = n.astype(u.dtype)
        start = index * equation.control.interval_length
        return march.advance(equation.interval_terms(index, own), start, u)

    def through(first: ArrayLike, end: ArrayLike, u: Array) -> Array:
        return lax.fori_loop(jnp.asarray(first), jnp.asarray(end), layer, u)

    def walked(first: ArrayLike, end: ArrayLike, u: Array) -> Array:
        def field(u: Array) -> Array:
            return through(first, end, u) - u

        def advance(_, v: Array) -> Array:
            slope = field(v)
            if walk.heun:
                slope = (slope + field(v + step * slope)) / 2
            return v + step * slope

        v = lax.fori_loop(0, walk.steps, advance, u)
        if not walk.anchor:
            return v
        return walk.anchor * through(first, end, u) + (1 - walk.anchor) * v

    u = through(0, first, march.u0)
    if walk.by_layer:
        u = lax.fori_loop(
            jnp.asarray(first), jnp.asarray(end), lambda n, u: walked(n, n + 1, u), u
        )
    else:
        u = walked(first, end, u)
    return through(end, equation.control.layers, u)


@checked
def study_windows(
    path: str,
    *,
    steps: PositiveInt,
    calibration: PositiveInt = 128,
    held_out: PositiveInt = 128,
    trust: bool = False,
    text: str | None = None,
) -> Report:
    """Walks windows of layers of the run or checkpoint in `path` in `steps` steps.

    For each of `walks` the window with the least loss on `calibration` samples is measured on
    `held_out` others. Controls: windows of the same size at random (`random`, the mean over all
    others), and a temperature by which outputs are divided, fitted on the calibration samples
    for the native model and the window alike. `text`: see `make_problem`.
    """
    loaded = load_model(path, trust=trust)
    model = loaded.model.ordinary
    problem = make_problem(loaded, calibration, held_out, text=text)
    if problem.calibration_losses is None:
        raise InputError(f"{path}: its problem has no targets to choose windows by.")
    say = Terminal().print

    def judge(inputs: PyTree[ArrayLike], losses: Losses) -> Callable[..., np.ndarray]:
        read = eqx.filter_jit(lambda model, u, t: losses(model.outputs(u, inputs) / t))

        def judged(
            first: int, end: int, walk: Walk, temperatures: Sequence[float] = (1.0,)
        ) -> np.ndarray:
            """`[temperatures, samples]`."""
            u = walked_state(model, inputs, jnp.asarray(first), jnp.asarray(end), walk)
            return np.array([read(model, u, jnp.asarray(t, u.dtype)) for t in temperatures])

        return judged

    chosen_by = judge(problem.calibration, problem.calibration_losses)
    measured_by = judge(problem.held_out, problem.losses)

    def fitted_temperature(*window: Any) -> float:
        return best_temperature(np.mean(chosen_by(*window, TEMPERATURES), axis=1))

    plain = 0, 1, Walk(1)
    (native,) = measured_by(*plain)
    (cooled,) = measured_by(*plain, [fitted_temperature(*plain)])
    windows = list(itertools.combinations(range(model.layers + 1), 2))
    rows = []
    for name, walk in walks(steps).items():
        scores = [float(np.mean(chosen_by(*window, walk))) for window in windows]
        first, end = windows[int(np.nanargmin(scores))]
        size = end - first
        temperature = fitted_temperature(first, end, walk)
        chosen, cooler = measured_by(first, end, walk, [1.0, temperature])
        others = [x for x in windows if x[1] - x[0] == size and x != (first, end)]
        random = [np.mean(measured_by(*window, walk) - native) for window in others]
        change = chosen - native
        rows.append(
            {
                "walk": name,
                "layers": f"{first}–{end - 1}",
                "evaluations": walk.evaluations(model.layers, size),
                "calibration_loss": min(scores),
                "loss": float(np.mean(chosen)),
                "change": float(np.mean(change)),
                "uncertainty": standard_error(change),
                "random": float(np.mean(random)) if random else None,
                "temperature": temperature,
                "cooled_change": float(np.mean(cooler - cooled)),
                "cooled_uncertainty": standard_error(cooler - cooled),
            }
        )
        say(f"{name}: layers {first} to {end - 1}")
    return Report(
        f"windows of {Path(path).name}",
        f"Windows of layers of {path} in {steps} steps, chosen among {len(windows)} by the "
        f"loss ({problem.loss}) on {calibration} samples and measured on {held_out} others. "
        f"The native loss is {np.mean(native):.4f}. Uncertainties are standard errors.",
        rows,
        {
            "change": "change of the loss",
            "random": "mean change of other windows of its size",
            "temperature": "fitted temperature",
            "cooled_change": "change at fitted temperatures",
            "cooled_uncertainty": "its uncertainty",
        },
    )
