"""Base classes of the schemes: diffrax's signature, with the defaults of this package."""

import abc
from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
from jaxtyping import PyTree

from ...equation import Depth
from ...errors import InputError
from .step import Step, StepField, Terms, U


class AbstractScheme(diffrax.AbstractSolver):
    """A scheme that solves the sum of the terms, carries nothing from step to step, and is
    interpolated linearly between steps, unless it says otherwise.

    A subclass writes `step` in diffrax's signature. `AbstractOneStep` asks for less.
    """

    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
    # Whether its steps, as they become short, approach the solution of u_t = Σ_i A_i(u).
    consistent: ClassVar[bool] = True
    # Whether what it carries from step to step is lost where the field jumps.
    restarts: ClassVar[bool] = False

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def start(self, field: StepField, u: U) -> PyTree:
        """The state of the scheme before the first step; nothing by default."""
        return None

    def init(self, terms: Terms, t0: Depth, t1: Depth, y0: U, args: PyTree) -> PyTree:
        return self.start(StepField(terms, t0, t1, args), y0)

    def func(self, terms: Terms, t0: Depth, y0: U, args: PyTree) -> U:
        return terms.vf(t0, y0, args)


class AbstractFieldScheme(AbstractScheme):
    """A scheme written in terms of the field over one step, `StepField`. It may carry a
    state of its own from step to step."""

    @abc.abstractmethod
    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        """One step.

        **Arguments:**

        - `field`: the field over the step.
        - `u`: the state of the equation before the step.
        - `state`: that of the scheme, from `start` or from the step before.
        - `made_jump`: whether the field jumped just before this step.
        """

    def step(
        self,
        terms: Terms,
        t0: Depth,
        t1: Depth,
        y0: U,
        args: PyTree,
        solver_state: PyTree,
        made_jump: PyTree,
    ) -> Step:
        return self.make_step(StepField(terms, t0, t1, args), y0, solver_state, made_jump)


class AbstractOneStep(AbstractFieldScheme):
    """A scheme whose step is a function of the present state alone. A subclass writes
    `advance` and, if it is known, `order`; Heun's method, for example, is

        class Heun(AbstractOneStep):
            def order(self, terms):
                return 2

            def advance(self, field, u):
                first = field(0, u)
                second = field(1, u + first)
                return u + 0.5 * (first + second)
    """

    @abc.abstractmethod
    def advance(self, field: StepField, u: U) -> U:
        """The state after the step."""

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        return Step.between(u, self.advance(field, u))


def inconsistent(solver: PyTree) -> PyTree | None:
    """The scheme inside a scheme, itself included, that is not consistent with the sum of the
    operators; `None` where there is none."""

    def is_one(x):
        return not getattr(x, "consistent", True)

    return next(filter(is_one, jax.tree.leaves(solver, is_leaf=is_one)), None)


def restarts_at_jumps(solver: PyTree) -> bool:
    """Whether a scheme loses what it carries where the field jumps."""
    return getattr(solver, "restarts", False)


def operator_terms(
    scheme: diffrax.AbstractSolver, terms: Terms
) -> tuple[diffrax.AbstractTerm, ...]:
    """One term for each operator, for a scheme that treats one operator after the other."""
    if not isinstance(terms, diffrax.MultiTerm):
        raise InputError(
            f"{type(scheme).__name__} splits a sum of operators, but was given "
            f"{type(terms).__name__}; pass equation.terms or a diffrax.MultiTerm."
        )
    return terms.terms
