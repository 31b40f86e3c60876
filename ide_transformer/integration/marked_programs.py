"""Runs a function and replaces arrays at marked places.

JAX has no public way to do so. Only this file reads traced programs. Their format may change
with JAX; then its test fails."""

import functools as ft
import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, Literal, Primitive, jaxprs_in_params
from jax.extend.core.primitives import cond_p, jit_p
from jaxtyping import Array, PyTree


# `fill(index, arrays, axis, size)` returns the arrays that replace those at mark `index`.
Fill: TypeAlias = Callable[[int, list[Array], int, int], list[Array]]

_mark_p = Primitive("mark")
_mark_p.multiple_results = True


class MarkInLoop(ValueError):
    """Raised for a mark inside a loop, which all iterations share."""


@_mark_p.def_abstract_eval
def _replacement_types(*arrays, axis: int, size: int):
    return [x.update(shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])) for x in arrays]


def mark(arrays: PyTree[Array], *, axis: int, size: int) -> PyTree[Array]:
    """Marks arrays, to be replaced by arrays with `size` entries on `axis`."""
    leaves, structure = jax.tree.flatten(arrays)
    return jax.tree.unflatten(structure, _mark_p.bind(*leaves, axis=axis, size=size))


def run_marked(
    program: Callable, fill: Fill, *arguments: PyTree
) -> tuple[PyTree, list[list[Array]]]:
    """Runs a function with marked arrays replaced by `fill`. Returns its outputs and the
    original arrays of each mark, which are zeros in branches that a `lax.cond` skips."""
    traced, outputs = jax.make_jaxpr(program, return_shape=True)(*arguments)
    originals: list[list[Array]] = []

    def evaluate(jaxpr: Jaxpr, constants: list, arguments: list) -> list:
        values = dict(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(x):
            return x.val if isinstance(x, Literal) else values[x]

        for eqn in jaxpr.eqns:
            inputs = [read(x) for x in eqn.invars]
            if eqn.primitive is _mark_p:
                place = len(originals)
                originals.append(inputs)
                outputs = fill(place, inputs, eqn.params["axis"], eqn.params["size"])
            elif not any(map(_has_marks, jaxprs_in_params(eqn.params))):
                binding = eqn.primitive.get_bind_params(eqn.params)
                functions, parameters = binding if isinstance(binding, tuple) else ((), binding)
                with eqn.ctx.manager:
                    outputs = eqn.primitive.bind(*functions, *inputs, **parameters)
                if not eqn.primitive.multiple_results:
                    outputs = [outputs]
            elif eqn.primitive is jit_p:
                inner = eqn.params["jaxpr"]
                outputs = evaluate(inner.jaxpr, inner.consts, inputs)
            elif eqn.primitive is cond_p:
                index, *operands = inputs
                outputs = switch(index, eqn.params["branches"], operands)
            else:
                raise MarkInLoop(str(eqn.primitive))
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def switch(index: Array, branches: tuple[Any, ...], operands: list) -> list:
        first = len(originals)
        # The shapes of the original arrays of each branch.
        shapes: list[list[list[Array]]] = []

        def run(branch_index: int, *operands: Array) -> tuple[list, list[list[Array]]]:
            """The outputs of a branch, and the original arrays of its marks."""
            earlier = list(itertools.chain(*shapes[:branch_index]))
            originals.extend(earlier)
            branch = branches[branch_index]
            outputs = evaluate(branch.jaxpr, branch.consts, list(operands))
            of_branch = originals[first + len(earlier) :]
            del originals[first:]
            return outputs, of_branch

        def run_with_zeros(branch_index: int, *operands: Array) -> tuple[list, list]:
            by_branch = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            outputs, by_branch[branch_index] = run(branch_index, *operands)
            return outputs, by_branch

        for i in range(len(branches)):
            shapes.append(jax.eval_shape(ft.partial(run, i), *operands)[1])
        runs = [ft.partial(run_with_zeros, i) for i in range(len(branches))]
        outputs, by_branch = lax.switch(index, runs, *operands)
        originals.extend(itertools.chain(*by_branch))
        return outputs

    values = evaluate(traced.jaxpr, traced.consts, jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(outputs), values), originals


def _has_marks(jaxpr: Any) -> bool:
    return any(
        eqn.primitive is _mark_p or any(map(_has_marks, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )
