"""The cost of a step in field evaluations."""

import functools as ft
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jax.experimental import io_callback

from ..equation import Free, TokenDomain, make_terms


class Evaluations(NamedTuple):
    """Field evaluations of one step: of the first step after a jump, and of those that
    follow. One evaluation is that of every operator once; half of the operators count ½."""

    first: float
    following: float


def count_evaluations(solver: diffrax.AbstractSolver, num_operators: int) -> Evaluations:
    """What two steps of `solver` cost, counted by making them on a tiny state.

    **Arguments:**

    - `solver`: any solver; of an implicit one the count is that of a linear problem.
    - `num_operators`: the number of operators in a block.
    """
    arrays, rest = eqx.partition(solver, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    return _count(rest, structure, shapes, num_operators)


@ft.lru_cache
def _count(rest, structure, shapes, num_operators: int) -> Evaluations:
    calls = 0

    def count(u):
        nonlocal calls
        calls += 1
        return -u

    def operator(u, domain):
        # A callback counts what is run, also inside the loops over stages of diffrax.
        return io_callback(count, jax.ShapeDtypeStruct(u.shape, u.dtype), u)

    costs = []
    with jax.ensure_compile_time_eval():
        arrays = jax.tree.unflatten(structure, [jnp.ones(*shape) for shape in shapes])
        solver = eqx.combine(arrays, rest)
        block = (operator,) * num_operators
        terms = make_terms(
            lambda t: block, lambda t: Free(), TokenDomain.uniform(1), num_operators
        )
        u, made_jump = jnp.ones((1, 1)), True
        state = solver.init(terms, 0.0, 0.1, u, None)
        for _ in range(2):
            calls = 0
            u, _, _, state, _ = solver.step(terms, 0.0, 0.1, u, None, state, made_jump)
            jax.block_until_ready(u)
            costs.append(calls / num_operators)
            made_jump = False
    return Evaluations(*costs)
