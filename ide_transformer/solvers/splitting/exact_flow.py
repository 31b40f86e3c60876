import jax
from jaxtyping import PyTree

from ...equation import AbstractExactOperator, Depth, operator_fields
from ...errors import InputError
from ..base.scheme import AbstractOneStep
from ..base.step import StepField, Terms, U


class ExactFlow(AbstractOneStep):
    """The flow of one operator in closed form, `u_{n+1} = flow(u_n, h)`, its weights taken
    at the middle of the step. A sub-solver for splitting schemes; they use it by
    themselves for operators that know their flow.

    Exact where θ is constant over the step, second order where it is not.

    **Raises:** `InputError` for an operator without a flow.
    """

    def order(self, terms: Terms) -> int:
        return 2

    def advance(self, field: StepField, u: U) -> U:
        fields = operator_fields(field.terms)
        operator = exact_operator(field.terms, field.t(0.5), field.args)
        if operator is None:
            names = [type(one.operator(field.t0, field.args)).__name__ for one in fields]
            raise InputError(
                f"ExactFlow: {' + '.join(names) or 'this term'} has no flow in closed form; "
                "give the splitting a sub-solver such as diffrax.Heun() instead. Flows are "
                "known of subclasses of AbstractExactOperator: Damping, Diffusion, DeltaRule."
            )
        domain = fields[0].domain
        return jax.tree.map(lambda u: operator.flow(u, domain, field.h).astype(u.dtype), u)


def exact_operator(terms: PyTree, t: Depth, args: PyTree) -> AbstractExactOperator | None:
    """The operator of a term of its own, if it knows its flow."""
    fields = operator_fields(terms)
    if len(fields) != 1:
        return None
    operator = fields[0].operator(t, args)
    return operator if isinstance(operator, AbstractExactOperator) else None
