"""Counts the field evaluations of a step, and finds their depths inside the step."""

import functools as ft
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback
from jaxtyping import Array, Float, PyTree

from ..arguments import is_known
from ..equation import (
    AbstractExactOperator,
    AbstractLinearOperator,
    AbstractOperator,
    Depth,
    Free,
    TokenDomain,
    by_kind,
    make_terms,
    parts,
)


class Evaluations(NamedTuple):
    """Field evaluations of the first step after a jump and of the following steps, and their
    depths as fractions of a step. One evaluation evaluates each operator or its flow once."""

    first: float
    following: float
    fractions: tuple[float, ...]


class EvaluationCount(eqx.Module):
    """The evaluations so far, with Jacobian products, in the memory of a scheme."""

    count: Float[Array, "..."]

    def plus(self, evaluations: Float[Array, "..."] | float | int) -> "EvaluationCount":
        return EvaluationCount(self.count + evaluations)


def evaluation_count(solver_state: PyTree) -> EvaluationCount | None:
    """The count in a solver's memory; `None` if the cost of a step is fixed."""
    return next(iter(parts(solver_state, EvaluationCount)), None)


def count_evaluations(
    solver: diffrax.AbstractSolver, block: PyTree, features: int
) -> Evaluations | None:
    """Counts the evaluations of a step of `solver` by making three; `None` if implicit."""
    arrays, rest = eqx.partition(solver, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    # A stand-in has the kind of its operator, by which schemes choose what they do.
    kinds = tuple((type(x).__name__, by_kind(x, _Plain, _Exact, _Linear)) for x in block)
    return _count(rest, structure, shapes, kinds, features)


@ft.lru_cache
def _count(
    rest: PyTree, structure: Any, shapes: tuple, kinds: tuple, features: int
) -> Evaluations | None:
    depths: list[float] = []
    # Errors print the names of operators.
    stand_ins = [types.new_class(name, (kind,)) for name, kind in kinds]

    # One function for all operators, so that it is compiled once.
    def record(u, t):
        # NumPy: a callback that waits for JAX could deadlock.
        depths.append(float(np.asarray(t)))
        return -np.asarray(u)

    def block_at(t):
        t = jnp.asarray(t, float)
        return tuple(stand_in(t, record) for stand_in in stand_ins)

    costs: list[float] = []
    fractions: set[float] = set()
    # Without compilation only branches that are taken are counted.
    with jax.ensure_compile_time_eval(), jax.disable_jit():
        arrays = jax.tree.unflatten(structure, [jnp.ones(*shape) for shape in shapes])
        solver = eqx.combine(arrays, rest)
        terms = make_terms(block_at, lambda t: Free(), TokenDomain.uniform(1), len(kinds))
        u = jnp.ones((1, features))
        state = solver.init(terms, 0.0, 1.0, u, None)
        implicit = isinstance(solver, diffrax.AbstractImplicitSolver)
        if implicit or evaluation_count(state) is not None:
            return None
        # The third step has a full memory.
        for made_jump in (True, False, False):
            depths.clear()
            u, _, _, state, _ = solver.step(terms, 0.0, 1.0, u, None, state, made_jump)
            jax.block_until_ready(u)
            costs.append(len(depths) / len(kinds))
            fractions.update(depths)
    return Evaluations(costs[0], costs[-1], tuple(sorted(fractions)))


class _Plain(AbstractOperator):
    """Calls `record(u, t)` on the host in each evaluation."""

    t: Float[Array, ""]
    record: Callable = eqx.field(static=True)

    def __call__(self, u: Array, domain: TokenDomain) -> Array:
        if is_known(u) and is_known(self.t):
            # A callback would put its result on one device.
            return jnp.asarray(self.record(u, self.t))
        return io_callback(self.record, jax.ShapeDtypeStruct(u.shape, u.dtype), u, self.t)


class _Exact(_Plain, AbstractExactOperator):
    dissipative = False

    def flow(self, u: Array, domain: TokenDomain, h: Depth) -> Array:
        return self(u, domain)


class _Linear(_Exact, AbstractLinearOperator):
    def apply(self, function: Callable, u: Array, domain: TokenDomain) -> Array:
        return function(-jnp.ones(())) * u
