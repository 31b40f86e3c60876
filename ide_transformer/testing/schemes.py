"""Conformance of time-stepping schemes."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..equation import (
    AbstractLinearOperator,
    AbstractOperator,
    Depth,
    Equation,
    Free,
    PiecewiseConstant,
    PiecewiseLinear,
    Sphere,
    State,
    TokenDomain,
    spelled,
)
from ..errors import InputError
from ..integration import AbstractGradient, Direct, Recompute, Recursive, Reversible, solve
from ..solvers import StepField, couplings_of, inconsistent, keeps_constraint, matrix_free
from ..studies.convergence import equation_limit, refine
from ..training import SchemeConfig
from ..training.build import build_solver


TOKENS, FEATURES, INTERVALS = 3, 4, 3


class _Bend(AbstractOperator):
    """`A(u) = sin(u M + p + t)`."""

    matrix: Float[Array, "features features"]
    phase: Float[Array, " features"]

    configurable: ClassVar[bool] = False

    def at(self, t: Depth, args: PyTree) -> "_Bend":
        return replace(self, phase=self.phase + t)

    def __call__(self, u: State, domain: TokenDomain) -> State:
        return jnp.sin(u @ self.matrix + jnp.broadcast_to(self.phase, u.shape))


class _Scale(AbstractLinearOperator):
    """`A(u) = r u`, which grows or decays by the feature."""

    rate: Float[Array, " features"]

    configurable: ClassVar[bool] = False
    dissipative: ClassVar[bool] = False

    def apply(self, function: Callable, u: State, domain: TokenDomain) -> State:
        return jnp.broadcast_to(function(self.rate.astype(u.dtype)), u.shape) * u


def _drawn(seed: int, *shape: int) -> Array:
    """Numbers drawn by NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _default_operators() -> tuple[AbstractOperator, ...]:
    bend = _Bend(0.7 * _drawn(1, FEATURES, FEATURES), _drawn(10, FEATURES))
    return bend, _Scale(jnp.linspace(-0.5, 0.4, FEATURES))


def _require(holds: Any, rule: str, message: str) -> None:
    if not holds:
        raise AssertionError(f"{rule}: {message}")


def _same(rule: str, things: str, found: PyTree, expected: PyTree) -> None:
    """Equal to rounding, and to the tolerance of implicit equations."""
    x, y = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(z)])
        for z in (found, expected)
    )
    apart = np.max(np.abs(x - y)) / max(1, np.max(np.abs(y)))
    _require(apart < 1e-9, rule, f"{things} differ by {apart:.1e}.")


def check_scheme(
    solver: diffrax.AbstractSolver,
    *,
    operators: tuple[AbstractOperator, ...] | None = None,
    limit: Callable[[Equation, Array], Array] | None = None,
) -> None:
    """Check that a scheme does what every scheme must, on a state of 3 tokens and 4 features
    over a depth of 3, with a step for each unit of it, in float64:

    - *pickle*: it comes back from a pickle as it was.
    - *configuration*: a configuration can name it, unless it says `configurable = False`.
    - *order*: with shorter steps its error falls by the order that it says, to ±0.15 (from
      order five on, where the range ends at rounding, ±0.4), on weights that jump at each
      unit of depth and with a field that changes in between. Not checked where `order` is
      `None`, nor where `consistent` is false and no `limit` is given.
    - *by hand*: `ide_transformer.solve` gives what `diffrax.diffeqsolve` does on a control
      without jumps; and *batch*: also for several samples at once.
    - *interpolation*: between steps it meets the states at their ends.
    - *gradient*: that of all weights, of the scheme too, and of the initial state is the one of
      finite differences; *gradient modes*: all give the same one.
    - *vmap*: compiled inside `jax.vmap` it gives the same states and gradients.
    - *failure*: weights that are not finite end in a result that says so.
    - *constraint*: on a sphere the state ends on it to rounding. Not checked where the scheme
      refuses one.
    - *dtype*: a state in float32 stays so.

    **Arguments:**

    - `solver`: the scheme. Where it has weights for each step, operator or feature it needs
      those of 3 steps, 2 operators and 4 features.
    - `operators`: at one depth, for a scheme that needs some of a kind. By default one that
      depends on depth, and a linear one that knows its flow; they do not commute.
    - `limit`: from an equation and its initial state to the state at the end to which the
      scheme converges. By default the solution of the equation.

    **Raises:** `AssertionError` whose message begins with the property.

    ```python
    class Heun(ide.AbstractOneStep):
        def order(self, terms):
            return 2

        def advance(self, field, u):
            first = field(0, u)
            return u + 0.5 * (first + field(1, u + first))

    check_scheme(Heun())
    ```
    """
    with jax.enable_x64(True):
        _check_pickle(solver)
        _check_configuration(solver)
        solver = _doubled(solver)
        block = _doubled(_default_operators() if operators is None else operators)
        _check_dtype(solver, block)
        _check_order(solver, block, limit)
        _check_constraint(solver, block)
        _check_solves(solver, block)


def _doubled(tree: PyTree) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, tree)


def _equation(control: type, block: PyTree, constraint: Any = Free()) -> Equation:
    """The equation whose weights are those of the block, others at each depth."""
    number = INTERVALS if control is PiecewiseConstant else INTERVALS + 1
    factors = 1 + 0.3 * np.cos(1 + np.arange(number))

    def stacked(x):
        if not eqx.is_inexact_array(x):
            return x
        return jnp.asarray(np.stack([factor * np.asarray(x) for factor in factors]))

    theta = control(jax.tree.map(stacked, block))
    return Equation(theta, constraint, TokenDomain.uniform(TOKENS))


def _check_pickle(solver: diffrax.AbstractSolver) -> None:
    try:
        copy = pickle.loads(pickle.dumps(solver))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise AssertionError(f"pickle: {error}.") from None
    same = eqx.tree_equal(copy, solver, typematch=True) or spelled(copy) == spelled(solver)
    _require(same, "pickle", f"{solver} comes back as {copy}.")


def _check_configuration(solver: diffrax.AbstractSolver) -> None:
    kind = type(solver)
    if not getattr(kind, "configurable", True) or "<locals>" in kind.__qualname__:
        return
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        sizes = dict(features=FEATURES, num_steps=INTERVALS, operators=2)
        found = build_solver("solver", SchemeConfig(kind=name), **sizes)
    except InputError as error:
        raise AssertionError(
            f"configuration: it cannot be named in one ({error}); give its arguments defaults, "
            "or say configurable = False."
        ) from None
    _require(type(found) is kind, "configuration", f"{name} builds {found}.")


def _check_dtype(solver: diffrax.AbstractSolver, block: PyTree) -> None:
    equation = _equation(PiecewiseLinear, block)
    single = jax.ShapeDtypeStruct((TOKENS, FEATURES), jnp.float32)
    try:
        end = eqx.filter_eval_shape(
            lambda u0: solve(equation, u0, solver=solver, throw=False).u1, single
        )
    except TypeError as error:
        if "float64" not in str(error):
            raise
        raise AssertionError(f"dtype: a state in float32 becomes another: {error}") from None
    _require(end.dtype == jnp.float32, "dtype", f"a state in float32 ends in {end.dtype}.")


def _check_order(solver: diffrax.AbstractSolver, block: PyTree, limit: Callable | None) -> None:
    equation, u0 = _equation(PiecewiseConstant, block), _drawn(5, TOKENS, FEATURES)
    order = solver.order(equation.terms)
    if order is None or (limit is None and inconsistent(solver) is not None):
        return
    exact = equation_limit(solver, equation, u0) if limit is None else limit(equation, u0)
    found = refine(equation, u0, solver, exact, order)
    errors = ", ".join(f"{error:.1e}" for error in found.errors)
    _require(
        abs(found.order - order) < (0.4 if order >= 5 else 0.15),
        "order",
        f"it says {order}, but the errors with {found.steps} steps in each interval are "
        f"{errors}: order {found.order:.2f}.",
    )


def _check_solves(solver: diffrax.AbstractSolver, block: PyTree) -> None:
    equation = _equation(PiecewiseLinear, block)
    u0, other = np.asarray(_drawn(5, 2, TOKENS, FEATURES))
    inputs, static = eqx.partition((equation, jnp.asarray(u0), solver), eqx.is_inexact_array)
    weights = _drawn(6, TOKENS, FEATURES)
    knots = diffrax.SaveAt(ts=jnp.asarray(equation.knots))

    def evaluated(gradient: AbstractGradient):
        """The gradient of a loss of the (first) sample, and the states at the knots."""

        def loss(inputs):
            equation, u0, solver = eqx.combine(inputs, static)
            solution = solve(
                *(equation, u0), solver=solver, gradient=gradient, saveat=knots, throw=False
            )
            first = solution.u1 if u0.ndim == 2 else solution.u1[0]
            states = solution.us, solution.succeeded
            return jnp.sum(weights * jnp.cos(first)), states

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    # Several solves at once: as they are, moved ahead and back, of another state, and one that
    # fails.
    random, h = np.random.default_rng(7), 1e-5
    along = jax.tree.map(lambda x: random.normal(size=x.shape), inputs)

    def lanes(x, d):
        return np.stack([x, x + h * d, x - h * d, x, x])

    together = jax.tree.map(lanes, jax.tree.map(np.asarray, inputs), along)
    together[1][3] = other
    for x in jax.tree.leaves(together[0].control):
        x[4, -1] = np.inf
    found = jax.tree.map(np.asarray, jax.vmap(evaluated(Direct()))(together))
    (losses, (states, succeeded)), gradients = found
    _require(
        succeeded[:4].all(),
        "failure",
        f"a result of failure with the states {states[0, :, 0]}.",
    )
    _require(
        not succeeded[4],
        "failure",
        f"with infinite weights at the end of depth the state is {states[4, -1, 0]}, and the "
        "result a success; a scheme must not hide numbers that are not finite.",
    )
    gradient = jax.tree.map(lambda x: x[0], gradients)
    (_, (single, _)), recomputed = evaluated(Recompute())(inputs)
    _same("vmap", "the states inside jax.vmap and without", single, states[0])
    _same("vmap", "the gradients inside jax.vmap and without", recomputed, gradient)
    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), gradient, along)))
    difference = (losses[1] - losses[2]) / (2 * h)
    _require(
        abs(slope - difference) < 1e-6 * max(1, abs(difference)),
        "gradient",
        f"along a random direction it is {slope:.9g}, by finite differences {difference:.9g}; "
        "is it stopped somewhere?",
    )
    batch = eqx.tree_at(lambda x: x[1], inputs, jnp.asarray(np.stack([u0, other])))
    (_, (both, _)), recursive = evaluated(Recursive(2))(batch)
    _same("batch", "a sample alone and beside another", both[:, 1], states[3])
    recursive = eqx.tree_at(lambda x: x[1], recursive, recursive[1][0])
    ways = "the gradients with {} and Direct()"
    _same("gradient modes", ways.format("Recursive(2)"), recursive, gradient)
    field = StepField(equation.terms_of(0), 0.0, 1.0)
    if couplings_of(solver, field, True) is not None:
        _, reversible = evaluated(Reversible())(inputs)
        _same("gradient modes", ways.format("Reversible()"), reversible, gradient)
    _check_by_hand(solver, equation, jnp.asarray(u0), states[0])


def _check_by_hand(
    solver: diffrax.AbstractSolver, equation: Equation, u0: Array, states: np.ndarray
) -> None:
    """Against the states of `solve` at the knots."""

    @eqx.filter_jit
    def by_hand(equation, method, u0):
        solution = diffrax.diffeqsolve(
            *(equation.terms, method, 0.0, equation.horizon, 1.0, u0),
            saveat=diffrax.SaveAt(t1=True, dense=True),
            max_steps=2 * INTERVALS,
            throw=False,
        )
        knots = jnp.asarray(equation.knots)
        before = jax.vmap(lambda t: solution.evaluate(t, left=True))(knots[1:])
        after = jax.vmap(lambda t: solution.evaluate(t, left=False))(knots[:-1])
        return solution.ys, before, after

    method = matrix_free(keeps_constraint(solver, equation.constraint))
    ends, before, after = by_hand(equation, method, u0)
    ways = "solve and diffrax.diffeqsolve on a control without jumps"
    _same("by hand", ways, ends, states[-1:])
    _same("interpolation", "the end of a step and the state there", before, states[1:])
    _same("interpolation", "the beginning of a step and the state there", after, states[:-1])


def _check_constraint(solver: diffrax.AbstractSolver, block: PyTree) -> None:
    sphere = Sphere()
    equation = _equation(PiecewiseLinear, block, sphere)
    try:
        keeps_constraint(solver, equation.constraint)
    except InputError:
        return
    u0 = sphere.project(_drawn(5, TOKENS, FEATURES))
    solution = solve(equation, u0, solver=solver, throw=False)
    residual = float(solution.stats["constraint_residual"])
    _require(
        residual < 1e-12 or not solution.succeeded,
        "constraint",
        f"on a sphere the state ends {residual:.1e} away from it; drop the method projected, "
        "or let it give a scheme that projects.",
    )
