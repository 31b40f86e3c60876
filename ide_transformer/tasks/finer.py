"""Terms of an objective that compare a solve with one of smaller steps."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..errors import InputError
from ..models import Mesh, Model


class Finer(eqx.Module):
    """The part of an objective that a finer mesh in depth decides,

        consistency · D(y, y') + defect · Σ |u - u'|² / Σ |u'|²,

    with the state u at depth T and the outputs y of a solve, u' and y' those of one with
    `refinement` times as many steps, and D the `gap` of the loss. Both solves are learned. The
    second term is, to leading order, in proportion to the square of the relative error of u.

    **Arguments:**

    - `refinement`: steps of the finer solve in each step of the other one.
    - `consistency`, `defect`: weights.
    """

    refinement: int = eqx.field(static=True)
    consistency: float = eqx.field(static=True)
    defect: float = eqx.field(static=True)

    def __call__(
        self,
        model: Model,
        inputs: PyTree[ArrayLike],
        key: PRNGKeyArray | None,
        u1: Float[Array, "*batch tokens features"],
        gap: Callable[[Array], Float[Array, ""]],
    ) -> tuple[Float[Array, ""], dict[str, Array], Float[Array, ""]]:
        """The weighted sum, its terms by name, and the field evaluations of the finer solve.

        **Arguments:**

        - `u1`: the state at depth T of the model on `inputs`, with the dropout of `key`.
        - `gap`: D, as a function of the outputs of the finer solve.

        **Raises:** `InputError` for a model that is solved with adaptive steps.
        """
        finer = model.each_stage(self._finer)
        solution = finer.solve(inputs, key=key)
        defect = jnp.sum((u1 - solution.u1) ** 2) / jnp.sum(solution.u1**2)
        terms = {"consistency": gap(finer.read_out(solution.u1)), "defect": defect}
        total = self.consistency * terms["consistency"] + self.defect * defect
        total = jnp.where(jnp.all(solution.succeeded), total, jnp.nan)
        return total, terms, jnp.mean(solution.stats["field_evaluations"])

    def _finer(self, model: Model) -> Model:
        """The model with more steps in each interval."""
        discretization = model.discretization
        if discretization.stepsize_controller is not None:
            raise InputError(
                "training.finer: the equation is solved with adaptive steps, which no mesh "
                "refines; drop it, or take equal steps (drop solver.rtol and solver.atol)."
            )
        steps = discretization.steps_per_interval * self.refinement
        return model.on(Mesh(steps_per_interval=steps))
