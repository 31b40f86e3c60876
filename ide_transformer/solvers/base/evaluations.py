"""The cost of a step in field evaluations, and where in the step they are made."""

import functools as ft
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...equation import Free, TokenDomain, make_terms
from .evaluation_count import evaluations_made
from .stand_ins import Recorder, kind_of_operator, stand_in


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
    """The cost of the steps of `solver`, counted by making some on a tiny state; `None` for
    implicit schemes, whose cost depends on the state.

    **Arguments:**

    - `solver`: any solver.
    - `block`: the tuple of operators, or their structure.
    - `features`: width of the state.
    """
    arrays, rest = eqx.partition(solver, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    kinds = tuple((type(operator).__name__, kind_of_operator(operator)) for operator in block)
    return _count(rest, structure, shapes, kinds, features)


# Cached: the steps are made once for all solves of the same kind.
@ft.lru_cache
def _count(
    rest: PyTree, structure: Any, shapes: tuple, kinds: tuple, features: int
) -> Evaluations | None:
    recorder = Recorder()

    def block_at(t):
        t = jnp.asarray(t, float)
        return tuple(stand_in(name, kind)(t, recorder) for name, kind in kinds)

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
        # The third step starts from a state that two steps have made.
        for _ in range(3):
            recorder.depths.clear()
            u, _, _, state, _ = solver.step(terms, 0.0, 1.0, u, None, state, made_jump)
            jax.block_until_ready(u)
            costs.append(len(recorder.depths) / len(kinds))
            fractions.update(recorder.depths)
            made_jump = False
    return Evaluations(costs[0], costs[-1], tuple(sorted(fractions)))
