"""Running costs along the path of a solve, added to the training loss."""

import abc
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..arguments import Fraction, NonNegativeFloat
from ..equation import Equation
from ..models import Model


class Path(NamedTuple):
    """The path of a solve, for the last equation of a model.

    - `model`, `inputs`: what was solved.
    - `states`: u(t_l) at the knots, `[knots, *batch, tokens, features]`.
    """

    model: Model
    inputs: PyTree[ArrayLike]
    states: Float[Array, "knots *batch tokens features"]

    @classmethod
    def of(cls, model: Model, inputs: PyTree[ArrayLike]) -> "Path":
        """The path of a model's solve."""
        with jax.ensure_compile_time_eval():
            saveat = diffrax.SaveAt(ts=jnp.asarray(model.equation.knots))
        return cls(model, inputs, model.solve(inputs, saveat=saveat).us)

    @property
    def equation(self) -> Equation:
        """The equation, with its sources."""
        return self.model.initial_value_problem(self.inputs)[0]

    @property
    def h(self) -> float:
        """The length of an interval."""
        return self.model.control.interval_length

    @property
    def middles(self) -> Float[Array, "intervals *batch tokens features"]:
        """The states in the middle of intervals, interpolated linearly."""
        return (self.states[1:] + self.states[:-1]) / 2

    def weights(self, s: float) -> PyTree[Float[Array, "intervals ..."]]:
        """The weights at the fraction s of each interval."""
        control = self.model.control
        weights_of = jax.vmap(
            lambda interval: eqx.filter(control.local(interval, s), eqx.is_inexact_array),
            axis_size=control.layers,
        )
        return weights_of(control.intervals())


class AbstractCost(eqx.Module):
    """A running cost. Training adds `weight` times the cost to its loss,

        ∫_0^T ℓ(t, u(t), θ(t)) dt ≈ Σ_l h ℓ in the middle of interval l,

    of order 2 in h for smooth u and θ; weight 0 only logs it. A subclass defines `__call__`.
    """

    weight: NonNegativeFloat = eqx.field(static=True)

    @abc.abstractmethod
    def __call__(self, path: Path) -> Float[Array, ""]:
        """The integral, without the weight."""


class Transport(AbstractCost):
    """`∫ mean |u_t|² dt`, the kinetic energy of the path, with the mean over samples, tokens
    (also padding) and features. It keeps the path short and its speed even, and needs no
    evaluation. On a constraint, project the input too (`model.input_normalization`): a jump at
    depth 0 costs more with more intervals. Reference: Kan, Li, Osher, arXiv 2501.18793.

    **Arguments:** `since`, the fraction of T from which the cost counts. Near 1, the state
    comes to rest at the end, so that further steps of a loop do not change it.
    """

    since: Fraction = eqx.field(static=True, default=0.0)

    def __call__(self, path: Path) -> Float[Array, ""]:
        change = jnp.diff(path.states, axis=0)
        # The product may be rounded to just below an integer.
        change = change[int(self.since * len(change) + 1e-9) :]
        return jnp.sum(jnp.mean(change**2, axis=range(1, change.ndim))) / path.h
