"""The equation `u_t = Σ_i A_i(u; θ(t)) + ∂I_S(u)`."""

import contextlib

import diffrax
import equinox as eqx
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, PyTree

from ..arguments import checked
from ..errors import InputError
from .arrays import Depth, State
from .constraints import AbstractConstraint
from .controls.control import AbstractControl, Tied, take
from .domain import TokenDomain
from .operators.operator import AbstractOperator
from .spelling import count_weights, listing, spell
from .terms import make_terms
from .tree import parts


@checked
class Equation(eqx.Module):
    """The integro-differential equation of a Transformer,

        u_t = Σ_i A_i(u; θ(t)) + ∂I_S(u),   u: [..., tokens, features],   t ∈ [0, T],

    with operators A_i, control θ and constraint S. Reference: arXiv 2510.03989.

    **Arguments:**

    - `control`: θ, a tuple of operators at each depth.
    - `constraint`: S, one constraint, a tuple with one for each operator, or a control that
      yields either at each depth.
    - `domain`: the token domain Ω_x.
    """

    control: AbstractControl
    constraint: AbstractControl
    domain: TokenDomain
    num_operators: int = eqx.field(static=True)

    def __init__(
        self,
        control: AbstractControl,
        constraint: AbstractConstraint | tuple[AbstractConstraint, ...] | AbstractControl,
        domain: TokenDomain,
    ):
        constraint = as_control(constraint, control)
        layers = control.layers
        length = control.interval_length
        if constraint.layers != layers or not np.isclose(constraint.interval_length, length):
            raise InputError(
                f"Equation: the constraint is on {constraint.layers} intervals of length "
                f"{constraint.interval_length:g}, the control on {layers} of {length:g}."
            )
        self.control = control
        self.constraint = constraint
        self.domain = domain
        if domain.of_samples:
            raise InputError(
                f"Equation: the domain has points {domain.points.shape} for each sample; solve "
                "samples one by one with jax.vmap, as models do."
            )
        block = eqx.filter_eval_shape(control, 0.0)
        operators = block if isinstance(block, tuple) else ()
        if not operators or not all(isinstance(x, AbstractOperator) for x in operators):
            raise InputError(
                f"Equation: the control yields {_kinds(block)}; it must yield a tuple of "
                "operators, such as (Attention(…), FeedForward(…))."
            )
        sets = eqx.filter_eval_shape(constraint, 0.0)
        sets = sets if isinstance(sets, tuple) else (sets,) * len(block)
        are_constraints = all(isinstance(x, AbstractConstraint) for x in sets)
        if not are_constraints or len(sets) != len(block):
            raise InputError(
                f"Equation: got the constraints {_kinds(sets)}; pass an AbstractConstraint, or "
                f"one for each of {len(block)} operators."
            )
        # Stored, because tracing the control again is expensive.
        self.num_operators = len(block)

    def __repr__(self) -> str:
        entries = contents(self.control, self.constraint)
        weights = count_weights((self.control, self.constraint))
        domain = spell(self.domain)
        return listing(self, {"parameters": weights, **entries, "domain": domain})

    @property
    def continuous(self) -> bool:
        """Whether the field has no jumps between intervals."""
        return self.control.continuous and self.constraint.continuous

    @property
    def horizon(self) -> float:
        """T, in layers."""
        return self.control.horizon

    @property
    def knots(self) -> np.ndarray:
        """The interval boundaries, from 0 to T."""
        return np.arange(self.control.layers + 1) * self.control.interval_length

    @property
    def terms(self) -> diffrax.MultiTerm:
        """One term for each operator, for any diffrax solver; solvers that do not split solve
        the sum. If θ jumps, use `solve`, which never reads past a jump."""
        return make_terms(self.control, self.constraint, self.domain, self.num_operators)

    def vector_field(self, t: Depth, u: State, args: PyTree = None) -> State:
        """`u_t` at depth `t`, tangential to the constraint."""
        rates = [term.vf(t, u, args) for term in self.terms.terms]
        return sum(rates[1:], rates[0])

    def intervals(self) -> PyTree[Array]:
        """The stacked weights that a march scans over; leading axis = interval."""
        return self.control.intervals(), self.constraint.intervals()

    def tabulate(self, points: np.ndarray, ends: np.ndarray) -> "Equation":
        """Computes the weights in advance, for a march that evaluates the field at `points` and
        ends steps at `ends`, fractions of each interval."""
        constraint = self.constraint.tabulate(np.union1d(points, ends))
        return Equation(self.control.tabulate(points), constraint, self.domain)

    def terms_of(self, index: int) -> diffrax.MultiTerm:
        """The terms inside interval `index`."""
        layers = self.control.layers
        message = f"Equation.terms_of: index must be from 0 to {layers - 1}."
        index = eqx.error_if(index, (index < 0) | (index >= layers), message)
        return self.interval_terms(index, take(self.intervals(), index))

    def interval_terms(self, index: int | Array, interval: PyTree[Array]) -> diffrax.MultiTerm:
        """The terms inside interval `index`, whose slice of `intervals()` is `interval`. At its
        end they still read its weights, not the next ones."""
        control, constraint = interval
        start = index * self.control.interval_length
        block_at = Partial(_inside, self.control, control, start)
        constraint_at = Partial(_inside, self.constraint, constraint, start)
        return make_terms(block_at, constraint_at, self.domain, self.num_operators)


def contents(control: PyTree, constraint: PyTree) -> dict[str, str]:
    """The lines of a printed equation, by name."""
    texts = {"control": spell(control), "constraint": spell(constraint)}
    if isinstance(control, AbstractControl):
        texts["control"] = type(control).__name__
        with contextlib.suppress(InputError):
            length = f"{control.interval_length:g}"
            texts["control"] += f", {control.layers} intervals of length {length}"
        for place, operator in enumerate(parts(control, AbstractOperator), 1):
            texts[f"operator {place}"] = spell(operator, control.depth_axes)
    if isinstance(constraint, AbstractControl):
        sets = parts(constraint, AbstractConstraint)
        texts["constraint"] = ", ".join(spell(x, constraint.depth_axes) for x in sets)
    return texts


def as_control(
    constraint: AbstractConstraint | tuple[AbstractConstraint, ...] | AbstractControl,
    control: AbstractControl,
) -> AbstractControl:
    if isinstance(constraint, AbstractControl):
        return constraint
    return Tied(constraint, control.layers, control.interval_length)


def _inside(
    control: AbstractControl, interval: PyTree[Array], start: Depth, t: Depth
) -> PyTree:
    return control.local(interval, (t - start) / control.interval_length)


def _kinds(parts: object) -> str:
    """The class of an object, or the classes of the members of a tuple."""
    if not isinstance(parts, tuple):
        return type(parts).__name__
    return f"({', '.join(type(x).__name__ for x in parts)})"
