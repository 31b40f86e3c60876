"""Conformance of a time-stepping scheme."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .. import equation as eq
from ..errors import InputError
from ..integration import AbstractGradient, Direct, Recompute, Recursive, Reversible, solve
from ..solvers import StepField, couplings_of, inconsistent, keeps_constraint, matrix_free
from ..studies.convergence import equation_limit, refine
from .properties import AbstractConformance, bits, drawn_like, in_dtype, trees_equal, within


TOKENS, FEATURES, INTERVALS = 3, 4, 3


class _Bend(eq.AbstractOperator):
    """`A(u) = sin(u M + p + 3 t)`."""

    matrix: Float[Array, "features features"]
    phase: Float[Array, " features"]

    configurable: ClassVar[bool] = False

    def at(self, t: eq.Depth, args: PyTree) -> "_Bend":
        return replace(self, phase=self.phase + 3 * t)

    def __call__(self, u: eq.State, domain: eq.TokenDomain) -> eq.State:
        return jnp.sin(u @ self.matrix + jnp.broadcast_to(self.phase, u.shape))


class _Scale(eq.AbstractLinearOperator):
    """`A(u) = r u`, which grows or decays by the feature."""

    rate: Float[Array, " features"]

    configurable: ClassVar[bool] = False
    dissipative: ClassVar[bool] = False

    def apply(self, function: Callable, u: eq.State, domain: eq.TokenDomain) -> eq.State:
        return jnp.broadcast_to(function(self.rate.astype(u.dtype)), u.shape) * u


def _drawn(seed: int, *shape: int) -> Array:
    """Numbers drawn by NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def _default_operators() -> tuple[eq.AbstractOperator, ...]:
    bend = _Bend(0.7 * _drawn(1, FEATURES, FEATURES), _drawn(10, FEATURES))
    return bend, _Scale(jnp.linspace(-0.5, 0.4, FEATURES))


def _equation(control: type, block: PyTree, constraint: eq.AbstractConstraint) -> eq.Equation:
    """The equation whose weights are those of the block, others at each depth."""
    number = INTERVALS if control is eq.PiecewiseConstant else INTERVALS + 1
    factors = 1 + 0.3 * np.cos(1 + np.arange(number))

    def stacked(x):
        if not eqx.is_inexact_array(x):
            return x
        return jnp.asarray(np.stack([factor * np.asarray(x) for factor in factors]))

    theta = control(jax.tree.map(stacked, block))
    return eq.Equation(theta, constraint, eq.TokenDomain.uniform(TOKENS))


class _Scheme(AbstractConformance):
    """A scheme on an equation without jumps, with a step for each interval."""

    kind = diffrax.AbstractSolver

    def __init__(self, part, options, operators, limit):
        super().__init__(part, options, FEATURES)
        self.solver, self.limit = in_dtype(part), limit
        self.block = in_dtype(_default_operators() if operators is None else operators)
        self.equation = _equation(eq.PiecewiseLinear, self.block, eq.Free())
        self.u0, self.other = np.asarray(_drawn(5, 2, TOKENS, FEATURES))
        parts = self.equation, jnp.asarray(self.u0), self.solver
        self.inputs, self.static = eqx.partition(parts, eqx.is_inexact_array)
        self.along = drawn_like(self.inputs)

    @property
    def offers(self):
        sizes = {"features": FEATURES, "num_steps": INTERVALS, "operators": len(self.block)}
        return {diffrax.AbstractSolver: sizes}

    def evaluated(self, gradient: AbstractGradient) -> Callable:
        """The gradient of a loss of the (first) sample, and the states at the knots."""
        knots = diffrax.SaveAt(ts=jnp.asarray(self.equation.knots))
        weights = _drawn(6, TOKENS, FEATURES)

        def loss(inputs):
            equation, u0, solver = eqx.combine(inputs, self.static)
            solution = solve(
                *(equation, u0), solver=solver, gradient=gradient, saveat=knots, throw=False
            )
            first = solution.u1 if u0.ndim == 2 else solution.u1[0]
            return jnp.sum(weights * jnp.cos(first)), (solution.us, solution.succeeded)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    @cached_property
    def together(self) -> Any:
        """Solves inside jax.vmap: given, moved ahead and back, another, a failing one."""

        def lanes(x, d):
            return np.stack([x, x + 1e-5 * d, x - 1e-5 * d, x, x])

        inputs = jax.tree.map(lanes, jax.tree.map(np.asarray, self.inputs), self.along)
        inputs[1][3] = self.other
        for x in jax.tree.leaves(inputs[0].control):
            x[4, -1] = np.inf
        return jax.tree.map(np.asarray, jax.vmap(self.evaluated(Direct()))(inputs))

    @cached_property
    def gradient(self) -> Any:
        return jax.tree.map(lambda x: x[0], self.together[1])

    @cached_property
    def batch(self) -> Any:
        """Two samples at once, by recursive checkpointing."""
        both = jnp.asarray(np.stack([self.u0, self.other]))
        inputs = eqx.tree_at(lambda x: x[1], self.inputs, both)
        (_, (states, _)), gradient = self.evaluated(Recursive(2))(inputs)
        return states, eqx.tree_at(lambda x: x[1], gradient, gradient[1][0])

    @cached_property
    def by_diffrax(self) -> Any:
        """The state at the end, and the interpolation at the ends and beginnings of steps."""
        equation, knots = self.equation, jnp.asarray(self.equation.knots)
        method = matrix_free(keeps_constraint(self.solver, equation.constraint))

        @eqx.filter_jit
        def by_hand(equation, method, u0):
            solution = diffrax.diffeqsolve(
                *(equation.terms, method, 0.0, equation.horizon, 1.0, u0),
                saveat=diffrax.SaveAt(t1=True, dense=True),
                max_steps=2 * INTERVALS,
                throw=False,
            )
            before = jax.vmap(lambda t: solution.evaluate(t, left=True))(knots[1:])
            after = jax.vmap(lambda t: solution.evaluate(t, left=False))(knots[:-1])
            return solution.ys, before, after

        return by_hand(equation, method, jnp.asarray(self.u0))

    @within(0.0)
    def copies(self):
        """pickled, it is the same."""
        # Schemes of diffrax hold objects that equal themselves alone.
        copy = pickle.loads(pickle.dumps(self.part))
        return trees_equal(copy, self.part) or eq.spelled(copy) == eq.spelled(self.part), True

    @within(0.0)
    def dtype(self):
        """a state in float32 stays so."""
        single = jnp.asarray(self.u0, jnp.float32)
        end = eqx.filter_eval_shape(
            lambda u0: solve(self.equation, u0, solver=self.solver, throw=False).u1, single
        )
        return bits(end), [32]

    @within(0.0)
    def order(self):
        """with shorter steps the error falls by the order that it says, to 0.15 (from order
        five on, where the range ends at rounding, to 0.4)."""
        equation = _equation(eq.PiecewiseConstant, self.block, eq.Free())
        order, u0 = self.solver.order(equation.terms), jnp.asarray(self.u0)
        if order is None or (self.limit is None and inconsistent(self.solver) is not None):
            raise InputError("It says none.")
        limit = self.limit or partial(equation_limit, self.solver)
        found = refine(equation, u0, self.solver, limit(equation, u0), order).order
        near = abs(found - order) < (0.15 if order < 5 else 0.4)
        return order if near else found, order

    @within(1e-12)
    def constraint(self):
        """on a sphere the state ends on it, or the solve fails."""
        sphere = eq.Sphere()
        equation = _equation(eq.PiecewiseLinear, self.block, sphere)
        u0 = sphere.project(jnp.asarray(self.u0))
        solution = solve(equation, u0, solver=self.solver, throw=False)
        return solution.stats["constraint_residual"] * solution.succeeded, 0

    @within(0.0)
    def failure(self):
        """weights that are not finite end in a failure, and others in a success."""
        return self.together[0][1][1], np.arange(5) < 4

    @within(1e-9)
    def vmap(self):
        """states and gradients are the same when compiled inside of jax.vmap."""
        (_, (states, _)), gradient = self.evaluated(Recompute())(self.inputs)
        return (states, gradient), (self.together[0][1][0][0], self.gradient)

    @within(1e-6)
    def derivative(self):
        """the gradient is that of finite differences; is it stopped somewhere?"""
        losses = self.together[0][0]
        each = jax.tree.map(lambda g, d: np.sum(g * d), self.gradient, self.along)
        return sum(jax.tree.leaves(each)), (losses[1] - losses[2]) / 2e-5

    @within(1e-9)
    def batches(self):
        """a sample is solved the same alone and beside another."""
        return self.batch[0][:, 1], self.together[0][1][0][3]

    @within(1e-9)
    def modes(self):
        """all gradient modes give the same gradient."""
        found, field = [self.batch[1]], StepField(self.equation.terms_of(0), 0.0, 1.0)
        if couplings_of(self.solver, field, True) is not None:
            found.append(self.evaluated(Reversible())(self.inputs)[1])
        return found, [self.gradient] * len(found)

    @within(1e-9)
    def diffeqsolve(self):
        """`solve` and `diffrax.diffeqsolve` agree on a control without jumps; does a stage or
        sub-step reach beyond the step, where the weights of the next interval begin?"""
        return self.by_diffrax[0], self.together[0][1][0][0, -1:]

    @within(1e-9)
    def interpolation(self):
        """the interpolation meets the states at the ends of steps."""
        states = self.together[0][1][0][0]
        return self.by_diffrax[1:], (states[1:], states[:-1])


def check_scheme(
    solver: diffrax.AbstractSolver,
    *,
    operators: tuple[eq.AbstractOperator, ...] | None = None,
    limit: Callable[[eq.Equation, Array], Array] | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Check what every scheme does, on a state of 3 tokens and 4 features over a depth of 3,
    with a step for each unit of it, in float64:

    - `copies`: it comes back from a pickle as it was.
    - `yaml`: a configuration makes it, unless it says `configurable = False`.
    - `dtype`: a state in float32 stays so.
    - `order`: with shorter steps its error falls by the order that it says, to ±0.15 (from
      order five on, where the range ends at rounding, ±0.4), on weights that jump at each
      unit of depth and with a field that changes in between. Not checked where `order` is
      `None`, nor where `consistent` is false and no `limit` is given.
    - `constraint`: on a sphere the state ends on it to rounding, unless the scheme refuses one.
    - `failure`: weights that are not finite end in a result that says so.
    - `vmap`: compiled inside `jax.vmap` it gives the same states and gradients.
    - `derivative`: the gradient of all weights, of the scheme too, and of the initial state is
      the one of finite differences; `modes`: all gradient modes give the same.
    - `batches`: several samples at once are solved as each alone.
    - `diffeqsolve`: `ide_transformer.solve` gives what `diffrax.diffeqsolve` does on a control
      without jumps; `interpolation`: between steps it meets the states at their ends.

    **Arguments:**

    - `solver`: the scheme. Where it has weights for each step, operator or feature it needs
      those of 3 steps, 2 operators and 4 features.
    - `operators`: at one depth, for a scheme that needs some of a kind. By default one that
      depends on depth, and a linear one that knows its flow; they do not commute.
    - `limit`: from an equation and its initial state to the state at the end to which the
      scheme converges. By default the solution of the equation.
    - `options`: those with which a configuration makes it.
    - `without`: names of properties that are not checked.

    **Example:** `check_scheme(Heun())`, see `AbstractOneStep`.
    """
    with jax.enable_x64(True):
        _Scheme(solver, options, operators, limit).check(without)
