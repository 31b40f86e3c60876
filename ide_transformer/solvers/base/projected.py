from collections.abc import Callable
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
from jaxtyping import PyTree

from ...arguments import checked
from ...equation import (
    AbstractConstraint,
    AbstractControl,
    AbstractRescaling,
    Free,
    operator_fields,
    parts,
    without_constraint,
)
from ...errors import InputError
from .reversible import Retraction
from .step import Step, StepField, Terms, U
from .wrapper import AbstractTransparentWrapper


@checked
def projected(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """The variant of a scheme for a state that is kept on a constraint: `Projected(solver)`,
    unless the scheme has a method `projected` that knows a better place for the projection.
    The splittings project after each sub-step. `solve` takes this variant by itself."""
    own = getattr(solver, "projected", None)
    return Projected(solver) if own is None else own()


def keeps_constraint(
    solver: diffrax.AbstractSolver, constraint: AbstractControl
) -> diffrax.AbstractSolver:
    """`projected(solver)`; the scheme itself where nothing is constrained."""
    sets = parts(eqx.filter_eval_shape(constraint, 0.0), AbstractConstraint)
    return solver if all(isinstance(x, Free) for x in sets) else projected(solver)


class Projected(AbstractTransparentWrapper):
    """A scheme that returns to the constraint set S after every step,

        u_{n+1} = project_S(Φ_h(u_n)),

    Φ_h the step of the wrapped solver. Around a solver of order 1 the step uses
    the plain fields: retraction alone is first order, and with Euler sub-steps it is the
    post-norm Transformer, `LieTrotter(Projected(Euler()))`. Around a solver of higher order
    the step uses the fields tangential to S, `d/dε project(u + ε A_i(u))`; retraction then
    keeps the order of the solver and puts the state on S to rounding. Reference for the
    latter: Hairer, Lubich, Wanner, Geometric Numerical Integration, section IV.4.

    `LieTrotter(Projected(Euler()))` retracts after each operator, on the constraint of that
    operator; `Projected(LieTrotter(Euler()))` retracts once a step, on that of the last.

    `solve` puts it in by itself where the equation has a constraint.

    **Arguments:**

    - `solver`: the wrapped solver.

    **Raises:** `InputError` where the terms are not those of an `Equation`, which alone
    know their constraint.
    """

    solver: diffrax.AbstractSolver

    # A configuration gives the constraint; the package then projects by itself.
    configurable: ClassVar[bool] = False

    def projected(self) -> "Projected":
        """Itself."""
        return self

    def inner_terms(self, terms: Terms) -> Terms:
        if not operator_fields(terms):
            raise InputError(
                "Projected needs the terms of an Equation (equation.terms), which know "
                f"their constraint; it was given {terms}."
            )
        return without_constraint(terms) if self.order(terms) == 1 else terms

    def order(self, terms: Terms) -> int | None:
        return self.solver.order(terms)

    def make_step(self, field: StepField, u: U, state: PyTree, made_jump: PyTree) -> Step:
        step = super().make_step(field, u, state, made_jump)
        constraint = operator_fields(field.terms)[-1].constraint(field.t1)
        y1 = jax.tree.map(constraint.project, step.y1)
        return step._replace(y1=y1, dense_info={**step.dense_info, "y1": y1})

    @property
    def couplings(self) -> Callable | None:
        """Couplings of the wrapped scheme, and the projection."""
        inner = super().couplings
        if inner is None:
            return None

        def couplings(field, first):
            constraint = operator_fields(field.terms)[-1].constraint(field.t1)
            if not isinstance(constraint, AbstractRescaling):
                raise InputError(
                    f"Projected: a projection on {type(constraint).__name__} cannot be "
                    "undone, so this scheme is not reversible; use gradient=Recompute(), or "
                    "one of Sphere, RMSSphere, LayerNorm and RMSNorm."
                )
            return (*inner(field, first), Retraction(constraint))

        return couplings
