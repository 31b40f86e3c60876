from collections.abc import Callable
from typing import Any

import diffrax
import jax
from jaxtyping import Array, PyTree

from ...equation import AbstractRescaling, Depth, operator_fields, without_constraint
from ...errors import InputError
from .couplings import Retraction
from .reversible import Couplings, find_couplings


def projected(solver: diffrax.AbstractSolver) -> diffrax.AbstractSolver:
    """The variant of a scheme for a state that is kept on a constraint: `Projected(solver)`,
    unless the scheme knows a better place for the projection, as the splittings do, which
    project after each sub-step."""
    own = getattr(solver, "projected", None)
    return Projected(solver) if own is None else own()


class Projected(diffrax.AbstractWrappedSolver):
    """A scheme that returns to the constraint set S after every step,

        u_{n+1} = project_S(Φ_h(u_n)),

    Φ_h the step of the wrapped solver. Around a solver of order 1 the step uses the plain
    fields: retraction alone is first order, and with Euler sub-steps it is the post-norm
    Transformer, `LieTrotter(Projected(Euler()))`. Around a solver of higher order the step
    uses the fields tangential to S, `d/dε project(u + ε A_i(u))`; retraction then keeps
    the order of the solver and puts the state on S to rounding. Reference for the latter:
    Hairer, Lubich, Wanner, Geometric Numerical Integration, section IV.4.

    `LieTrotter(Projected(Euler()))` retracts after each operator, on the constraint of that
    operator; `Projected(LieTrotter(Euler()))` retracts once a step, on that of the last.

    **Arguments:**

    - `solver`: the wrapped solver.

    **Raises:** `InputError` where the terms are not those of an `Equation`, which alone
    know their constraint.
    """

    solver: diffrax.AbstractSolver

    @property
    def term_structure(self):
        return self.solver.term_structure

    @property
    def interpolation_cls(self) -> Callable:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.solver.interpolation_cls

    @property
    def term_compatible_contr_kwargs(self):
        return self.solver.term_compatible_contr_kwargs

    @property
    def scan_kind(self) -> Any:
        """That of the wrapped Runge–Kutta method, which diffrax's adjoints set."""
        return self.solver.scan_kind  # pyright: ignore[reportAttributeAccessIssue]

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int | None:
        return self.solver.order(terms)

    def error_order(self, terms: PyTree[diffrax.AbstractTerm]):
        return self.solver.error_order(terms)

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree:
        return self.solver.init(self._fields(terms), t0, t1, y0, args)

    def step(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: PyTree,
        made_jump: PyTree,
    ) -> tuple:
        y1, error, dense_info, solver_state, result = self.solver.step(
            self._fields(terms), t0, t1, y0, args, solver_state, made_jump
        )
        constraint = operator_fields(terms)[-1].constraint(t1)
        y1 = jax.tree.map(constraint.project, y1)
        return y1, error, {**dense_info, "y1": y1}, solver_state, result

    def func(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Depth,
        y0: PyTree[Array],
        args: PyTree,
    ) -> PyTree[Array]:
        return self.solver.func(self._fields(terms), t0, y0, args)

    @property
    def couplings(self) -> Couplings | None:
        """Those of the wrapped scheme, and the projection."""
        inner = find_couplings(self.solver)
        if inner is None:
            return None

        def couplings(terms, t0, t1, args, first):
            constraint = operator_fields(terms)[-1].constraint(t1)
            if not isinstance(constraint, AbstractRescaling):
                raise InputError(
                    f"Projected: a projection on {type(constraint).__name__} cannot be "
                    "undone, so this scheme is not reversible; use gradient=Recompute(), or "
                    "one of Sphere, RMSSphere, LayerNorm and RMSNorm."
                )
            fields = self._fields(terms)
            return (*inner(fields, t0, t1, args, first), Retraction(constraint))

        return couplings

    def _fields(self, terms: PyTree[diffrax.AbstractTerm]) -> PyTree[diffrax.AbstractTerm]:
        if not operator_fields(terms):
            raise InputError(
                "Projected needs the terms of an Equation (equation.terms), which know "
                f"their constraint; it was given {terms}."
            )
        return without_constraint(terms) if self.order(terms) == 1 else terms
