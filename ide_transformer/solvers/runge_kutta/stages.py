"""The stages of explicit Runge–Kutta methods, one after the other."""

import abc
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import PyTree

from ..base.combine import combine
from ..base.scheme import AbstractFieldScheme
from ..base.step import Step, StepField, U


class Tableau(NamedTuple):
    """The Butcher tableau of an explicit method.

    - `rows`, `nodes`: a_ij and c_i of all stages but the first.
    - `weights`: b_i.
    - `error_weights`: those of the error estimate, if there is one.
    - `ends_in_last_stage`: whether the last stage is the state after the step.
    - `first_is_last`: whether the field of the last stage is that of the next first stage.
    """

    rows: Sequence[Iterable[float]]
    nodes: Sequence[float]
    weights: Iterable[float]
    error_weights: Iterable[float] | None = None
    ends_in_last_stage: bool = False
    first_is_last: bool = False


class AbstractExplicitStages(AbstractFieldScheme):
    """An explicit Runge–Kutta method, given by its tableau."""

    @property
    @abc.abstractmethod
    def tableau(self) -> Tableau:
        """The coefficients of the method."""

    def start(self, field: StepField, u: U) -> PyTree:
        if not self.tableau.first_is_last:
            return None
        # Whether the rate at the end of the step before is missing, and that rate.
        rate = eqx.filter_eval_shape(field.rate, 0, u)
        return True, jax.tree.map(jnp.zeros_like, rate)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        tableau = self.tableau
        rate, stage = self._first_rate(field, u, state, made_jump), u
        increments = [field.increment(rate)]
        for row, node in zip(tableau.rows, tableau.nodes, strict=True):
            stage = combine(u, row, increments)
            rate = field.rate(node, stage)
            increments.append(field.increment(rate))
        if not tableau.ends_in_last_stage:
            stage = combine(u, tableau.weights, increments)
        error = None
        if tableau.error_weights is not None:
            zero = jax.tree.map(jnp.zeros_like, u)
            error = combine(zero, tableau.error_weights, increments)
        k = jax.tree.map(lambda *leaves: jnp.stack(leaves), *increments)
        state = (False, rate) if tableau.first_is_last else None
        return Step.between(u, stage, error=error, state=state, k=k)

    def _first_rate(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> U:
        missing, last = state if self.tableau.first_is_last else (True, None)
        if made_jump is True or missing is True:
            return field.rate(0, u)
        return lax.cond(
            jnp.asarray(missing) | made_jump, lambda: field.rate(0, u), lambda: last
        )
