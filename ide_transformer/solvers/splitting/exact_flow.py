import diffrax
import jax
from jaxtyping import Array, PyTree

from ...equation import AbstractExactOperator, Depth, OperatorField, operator_fields
from ...errors import InputError
from ..base.scheme import AbstractScheme


class ExactFlow(AbstractScheme):
    """The flow of one operator in closed form, `u_{n+1} = flow(u_n, h)`, its weights taken
    at the middle of the step. A sub-solver for splitting schemes; they use it by
    themselves for operators that know their flow.

    Exact where θ is constant over the step, second order where it is not.

    **Raises:** `InputError` for an operator without a flow, and for a negative step of a
    dissipative one.
    """

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Depth,
        t1: Depth,
        y0: PyTree[Array],
        args: PyTree,
        solver_state: None,
        made_jump: PyTree,
    ) -> tuple:
        operator = exact_operator(terms, t0 + 0.5 * (t1 - t0))
        if operator is None:
            raise InputError(
                f"ExactFlow: {_names(terms, t0)} has no flow in closed form; give the "
                "splitting a sub-solver such as diffrax.Heun() instead. Flows are known of "
                "subclasses of AbstractExactOperator: Damping, Diffusion, DeltaRule."
            )
        (field,) = operator_fields(terms)
        h = terms.contr(t0, t1)
        y1 = jax.tree.map(lambda u: operator.flow(u, field.domain, h), y0)
        return y1, None, dict(y0=y0, y1=y1), None, diffrax.RESULTS.successful


def exact_operator(terms: PyTree, t: Depth) -> AbstractExactOperator | None:
    """The operator of a term of its own, if it knows its flow."""
    fields: list[OperatorField] = operator_fields(terms)
    if len(fields) != 1:
        return None
    operator = fields[0].operator(t)
    return operator if isinstance(operator, AbstractExactOperator) else None


def _names(terms: PyTree, t: Depth) -> str:
    names = [type(field.operator(t)).__name__ for field in operator_fields(terms)]
    return " + ".join(names) or "this term"
