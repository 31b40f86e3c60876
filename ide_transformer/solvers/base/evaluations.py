"""The cost of a step in field evaluations, and where in the step they are made."""

import functools as ft
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import PyTree

from ...equation import (
    AbstractExactOperator,
    AbstractLinearOperator,
    AbstractOperator,
    Free,
    TokenDomain,
    make_terms,
)
from .evaluation_count import evaluations_made


class Evaluations(NamedTuple):
    """Field evaluations of a scheme.

    - `first`, `following`: how many the first step after a jump makes, and those that
      follow. One evaluation is that of every operator once; half of the operators count ½,
      and the flow of an operator in closed form counts as its evaluation.
    - `fractions`: the depths at which they are made, in fractions of the step.
    """

    first: float
    following: float
    fractions: tuple[float, ...]


def count_evaluations(
    solver: diffrax.AbstractSolver, block: PyTree, features: int
) -> Evaluations | None:
    """What the steps of `solver` cost, counted by making some on a tiny state; `None` for
    implicit schemes, whose cost depends on the state.

    **Arguments:**

    - `solver`: any solver.
    - `block`: the tuple of operators, or their structure.
    - `features`: width of the state.
    """
    arrays, rest = eqx.partition(solver, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    kinds = tuple((type(operator).__name__, _kind(operator)) for operator in block)
    return _count(rest, structure, shapes, kinds, features)


def _kind(operator: PyTree) -> type | None:
    """The abstract class that decides how schemes treat an operator."""
    for kind in (AbstractLinearOperator, AbstractExactOperator):
        if isinstance(operator, kind):
            return kind
    return None


@ft.lru_cache
def _count(rest, structure, shapes, kinds: tuple, features: int) -> Evaluations | None:
    depths: list[float] = []

    def record(u, t):
        # In NumPy: a callback that waits for JAX could wait for itself.
        depths.append(float(np.asarray(t)))
        return -np.asarray(u)

    def evaluate(u, t):
        # A callback records what is run, also inside the loops over stages of diffrax.
        return io_callback(record, jax.ShapeDtypeStruct(u.shape, u.dtype), u, t)

    class Plain(AbstractOperator):
        t: jax.Array

        def __call__(self, u, domain):
            return evaluate(u, self.t)

    class Exact(AbstractExactOperator):
        t: jax.Array
        dissipative = False

        def __call__(self, u, domain):
            return evaluate(u, self.t)

        def flow(self, u, domain, h):
            return evaluate(u, self.t)

    class Linear(Exact, AbstractLinearOperator):
        def apply(self, function, u, domain):
            return function(-jnp.ones(())) * u

    # Named as what they stand for, which is what a scheme that refuses them would name.
    classes = {AbstractLinearOperator: Linear, AbstractExactOperator: Exact, None: Plain}
    metaclass: Any = type(Plain)
    stand_ins = [metaclass(name, (classes[kind],), {}) for name, kind in kinds]

    def block_at(t):
        t = jnp.asarray(t, float)
        return tuple(stand_in(t) for stand_in in stand_ins)

    costs, fractions = [], set()
    # Without compilation a branch that is not taken is not run, and not counted.
    with jax.ensure_compile_time_eval(), jax.disable_jit():
        arrays = jax.tree.unflatten(structure, [jnp.ones(*shape) for shape in shapes])
        solver = eqx.combine(arrays, rest)
        terms = make_terms(block_at, lambda t: Free(), TokenDomain.uniform(1), len(kinds))
        u, made_jump = jnp.ones((1, features)), True
        state = solver.init(terms, 0.0, 1.0, u, None)
        implicit = isinstance(solver, diffrax.AbstractImplicitSolver)
        if implicit or evaluations_made(state) is not None:
            return None
        # The third step is made of what two steps leave behind.
        for _ in range(3):
            depths.clear()
            u, _, _, state, _ = solver.step(terms, 0.0, 1.0, u, None, state, made_jump)
            jax.block_until_ready(u)
            costs.append(len(depths) / len(kinds))
            fractions.update(depths)
            made_jump = False
    return Evaluations(costs[0], costs[-1], tuple(sorted(fractions)))
