"""Base classes of schemes, the field over a step, and the result of a step."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias, cast

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..arguments import checked
from ..equation import Depth, State, parts
from ..errors import InputError


Terms: TypeAlias = PyTree[diffrax.AbstractTerm]


class Step(NamedTuple):
    """Result of one step, in diffrax's order.

    - `y1`: the state after the step.
    - `error`: an estimate of the local error, or `None`.
    - `dense_info`: the arguments of `interpolation_cls`.
    - `solver_state`: passed to the next step.
    - `result`: whether the step succeeded.
    """

    y1: PyTree
    error: Any
    dense_info: dict[str, PyTree[Array]]
    solver_state: PyTree
    result: Any

    @classmethod
    def between(
        cls,
        y0: PyTree,
        y1: PyTree,
        *,
        error: Array | None = None,
        state: PyTree = None,
        result: Any = diffrax.RESULTS.successful,
        **dense_info: Array,
    ) -> "Step":
        """A step from `y0` to `y1`; by default successful, without error estimate and state.
        Interpolations other than the linear one need more `dense_info`."""
        return cls(y1, error, dict(y0=y0, y1=y1, **dense_info), state, result)


@checked
class StepField(eqx.Module):
    """The vector field over the step from `t0` to `t1`, of length h: `field(c, u)` is the
    increment `h F(t0 + c h, u)`.

    **Arguments:** the `terms` of the equation, the ends of the step, and the `args` of the
    field.
    """

    terms: Terms
    t0: Depth
    t1: Depth
    args: PyTree = None

    def start(self, solver: diffrax.AbstractSolver, u: PyTree) -> PyTree:
        """The state of `solver` before its first step."""
        return solver.init(self.terms, self.t0, self.t1, u, self.args)

    def step(
        self, solver: diffrax.AbstractSolver, u: PyTree, state: PyTree, made_jump: PyTree
    ) -> Step:
        """One step of `solver`."""
        step = solver.step(self.terms, self.t0, self.t1, u, self.args, state, made_jump)
        return Step(*step)

    def first_step(self, solver: diffrax.AbstractSolver, u: PyTree) -> Step:
        """One step of `solver`, as the first of a solve."""
        return self.step(solver, u, self.start(solver, u), True)

    def with_terms(self, terms: Terms) -> "StepField":
        """The field of other terms over this step, such as the term of one operator."""
        return StepField(terms, self.t0, self.t1, self.args)

    def of_operators(self, scheme: diffrax.AbstractSolver) -> list["StepField"]:
        """The fields of single operators over this step, for a splitting."""
        if not isinstance(self.terms, diffrax.MultiTerm):
            raise InputError(
                f"{type(scheme).__name__}: got a {type(self.terms).__name__}, expected a "
                "diffrax.MultiTerm, such as equation.terms."
            )
        return [self.with_terms(term) for term in self.terms.terms]

    def reversed(self) -> "StepField":
        """The field over the step from `t1` back to `t0`."""
        return StepField(self.terms, self.t1, self.t0, self.args)

    @property
    def h(self) -> Depth:
        """The length of the step."""
        return self.t1 - self.t0

    def t(self, c: float | int) -> Depth:
        """The depth at the fraction `c` of the step, exact at both ends."""
        if c == 0:
            return self.t0
        return self.t1 if c == 1 else self.t0 + float(c) * self.h

    def __call__(self, c: float | int, u: Array) -> Array:
        control = self.terms.contr(self.t0, self.t1)
        return self.terms.vf_prod(self.t(c), u, self.args, control)

    def rate(self, c: float | int, u: Array) -> PyTree[Array]:
        """The rate `F(t0 + c h, u)`, one per term for a MultiTerm; see `increment`."""
        return self.terms.vf(self.t(c), u, self.args)

    def increment(self, rate: PyTree[Array]) -> Array:
        """`h` times a rate."""
        return self.terms.prod(rate, self.terms.contr(self.t0, self.t1))


@checked
def single_step(
    solver: diffrax.AbstractSolver,
    terms: Terms,
    t0: Depth,
    t1: Depth,
    u: State,
    args: PyTree = None,
) -> State:
    """The state after one step of `solver` from t0 to t1, as the first of a solve."""
    return StepField(terms, t0, t1, args).first_step(solver, u).y1


def first_failure(earlier: diffrax.RESULTS, later: diffrax.RESULTS) -> diffrax.RESULTS:
    """`earlier` if it is a failure, else `later`."""
    return diffrax.RESULTS.where(earlier == diffrax.RESULTS.successful, later, earlier)


class SolvePlan(NamedTuple):
    """The solve in which a scheme is used.

    - `steps`: the number of steps of the solve; `None` if they are not equal.
    - `horizon`: T.
    - `operators`: the number of operators.
    - `continuous`: whether the field is continuous in depth.
    """

    steps: int | None
    horizon: float
    operators: int
    continuous: bool


class AbstractScheme(diffrax.AbstractSolver):
    """A scheme that makes its step in `make_step`. By default it solves the sum of the terms,
    has no memory, and is interpolated linearly."""

    # The order, if known and independent of the terms.
    fixed_order: ClassVar[int | None] = None
    # Whether a configuration may name it.
    configurable: ClassVar[bool] = True
    # Whether it converges to the solution of u_t = Σ_i A_i(u) as h → 0.
    consistent: ClassVar[bool] = True
    # Whether it loses its memory where the field jumps.
    restarts: ClassVar[bool] = False
    # Whether the state may be a tree of arrays.
    takes_trees: ClassVar[bool] = False
    # Whether it draws random numbers in training, by its field `key`, `None` outside training.
    random: ClassVar[bool] = False
    # Classes of `args` that it can start from, besides the state.
    starts_from: ClassVar[tuple[type, ...]] = ()

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable] = diffrax.LocalLinearInterpolation

    def start(self, field: StepField, u: Array) -> PyTree:
        """The memory of the scheme before the first step; by default `None`."""
        return None

    def init(self, terms, t0, t1, y0, args) -> PyTree:
        if not self.takes_trees and not jax.tree_util.all_leaves([y0]):
            raise InputError(
                f"{type(self).__name__}: got a state of type {type(y0).__name__}, expected one "
                "array; stack its parts."
            )
        return self.start(StepField(terms, t0, t1, args), y0)

    @abc.abstractmethod
    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        """One step from `u`. `state` comes from `start` or the previous step; `made_jump`:
        whether the field has jumped since."""

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump) -> Step:
        return self.make_step(StepField(terms, t0, t1, args), y0, solver_state, made_jump)

    def order(self, terms: Terms) -> int | None:
        return self.fixed_order

    def limit(self) -> diffrax.AbstractSolver | None:
        """A scheme of high order with the limit of this scheme as h → 0. By default it solves
        the sum of the terms, or is `None` if this scheme is not `consistent`."""
        return diffrax.Dopri8() if self.consistent else None

    def check(self, plan: SolvePlan) -> None:
        """Raises `InputError` if the scheme cannot be used in this solve."""

    def learned(self) -> dict[str, Float[Array, ""]]:
        """Learned numbers by name, for the log of a run. By default the root mean square of
        each array."""
        return learned_numbers(self)

    def func(self, terms, t0, y0, args) -> PyTree[Array]:
        return terms.vf(t0, y0, args)


class AbstractOneStep(AbstractScheme):
    """A scheme without memory. A subclass defines `advance`, and `fixed_order` if known. Heun's
    method is

        class Heun(AbstractOneStep):
            fixed_order = 2

            def advance(self, field, u):
                first = field(0, u)
                second = field(1, u + first)
                return u + 0.5 * (first + second)
    """

    @abc.abstractmethod
    def advance(self, field: StepField, u: Array) -> Array:
        """The state after the step."""

    def make_step(self, field: StepField, u: Array, state: PyTree, made_jump: PyTree) -> Step:
        return Step.between(u, self.advance(field, u))


def solvers_of(tree: PyTree) -> list[diffrax.AbstractSolver]:
    """The solvers in a tree, outer before inner."""
    solvers = []

    def collect(x):
        # Not `isinstance`, which looks into solvers that diffrax wraps.
        if issubclass(type(x), diffrax.AbstractSolver):
            solvers.append(x)
        return False

    jax.tree.leaves(tree, is_leaf=collect)
    return solvers


def schemes_of(tree: PyTree) -> list[AbstractScheme]:
    """The schemes of this package in a tree, outer before inner."""
    schemes = [x for x in solvers_of(tree) if issubclass(type(x), AbstractScheme)]
    return cast(list[AbstractScheme], schemes)


def check_plan(solver: diffrax.AbstractSolver, plan: SolvePlan) -> None:
    """Raises `InputError` if a scheme, or a scheme inside it, cannot be used in a solve."""
    inside = [type(x) for x in solvers_of(solver)]
    if not plan.continuous and diffrax.LeapfrogMidpoint in inside:
        raise InputError(
            "solve: LeapfrogMidpoint steps over jumps of the weights and has order 1 there; "
            "use ide.Leapfrog(), which restarts, or a continuous control."
        )
    if parts(solver, diffrax.HalfSolver):
        plan = plan._replace(steps=None)
    for scheme in schemes_of(solver):
        scheme.check(plan)


def check_start(solver: diffrax.AbstractSolver, start: PyTree) -> None:
    """Raises `InputError` if no scheme inside can use the `start` from a model's inputs."""
    if start is None or any(isinstance(start, x.starts_from) for x in schemes_of(solver)):
        return
    kind = type(start).__name__
    raise InputError(
        f"Model: {type(solver).__name__} cannot start from the {kind}(…) of the inputs; use "
        "other inputs, or a scheme that takes it."
    )


def learned_numbers(tree: PyTree) -> dict[str, Float[Array, ""]]:
    """By name, the learned numbers of the schemes inside a tree and the root mean squares of
    its other arrays."""
    numbers = {}
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: x is not tree and issubclass(type(x), AbstractScheme)
    )
    for path, part in leaves:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if isinstance(part, AbstractScheme):
            numbers |= {f"{name}.{key}": value for key, value in part.learned().items()}
        elif eqx.is_inexact_array(part):
            numbers[name] = jnp.sqrt(jnp.mean(part**2))
    return numbers


def with_key(solver: diffrax.AbstractSolver, key: PRNGKeyArray) -> diffrax.AbstractSolver:
    """Sets the key of all random schemes inside."""

    def keys(solver):
        random = [scheme for scheme in schemes_of(solver) if scheme.random]
        return [scheme.key for scheme in random]  # pyright: ignore[reportAttributeAccessIssue]

    return eqx.tree_at(keys, solver, [key] * len(keys(solver)), is_leaf=lambda x: x is None)


def inconsistent_scheme(solver: PyTree) -> AbstractScheme | None:
    """The first scheme that is not consistent, outer before inner."""
    return next((scheme for scheme in schemes_of(solver) if not scheme.consistent), None)


def restarts_at_jumps(solver: PyTree) -> bool:
    return getattr(solver, "restarts", False)
