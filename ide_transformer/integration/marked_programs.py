"""Runs a traced program and replaces arrays at marked places.

JAX has no public way to do so. Only this file reads traced programs; the rest of the package
calls `mark` and `run_marked`. A new version of JAX may change the format, and then the test of
this file fails."""

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


# `fill(number, arrays, axis, size)` gives the arrays that leave this mark.
Fill: TypeAlias = Callable[[int, list[Array], int, int], list[Array]]

_mark_p = Primitive("mark")
_mark_p.multiple_results = True


class MarkInLoop(ValueError):
    """A mark in a loop, in which marks cannot be told apart."""


@_mark_p.def_abstract_eval
def _marked(*arrays, axis: int, size: int):
    return [x.update(shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])) for x in arrays]


def mark(arrays: PyTree[Array], *, axis: int, size: int) -> PyTree[Array]:
    """Marks a place, at which arrays are replaced by arrays with `size` entries on `axis`."""
    leaves, structure = jax.tree.flatten(arrays)
    return jax.tree.unflatten(structure, _mark_p.bind(*leaves, axis=axis, size=size))


def run_marked(
    program: Callable, fill: Fill, *arguments: PyTree
) -> tuple[PyTree, list[list[Array]]]:
    """Runs a program whose marks are replaced by `fill`. Returns its outputs, and the arrays
    that entered each mark: zeros in branches of a `lax.cond` not taken."""
    traced, outputs = jax.make_jaxpr(program, return_shape=True)(*arguments)
    entered: list[list[Array]] = []

    def evaluate(jaxpr: Jaxpr, constants: list, arguments: list) -> list:
        values = dict(zip(jaxpr.constvars, constants, strict=True))
        values.update(zip(jaxpr.invars, arguments, strict=True))

        def read(x):
            return x.val if isinstance(x, Literal) else values[x]

        for eqn in jaxpr.eqns:
            inputs = [read(x) for x in eqn.invars]
            if eqn.primitive is _mark_p:
                entered.append(inputs)
                outputs = fill(len(entered) - 1, inputs, eqn.params["axis"], eqn.params["size"])
            elif not any(map(_has_marks, jaxprs_in_params(eqn.params))):
                found = eqn.primitive.get_bind_params(eqn.params)
                functions, parameters = found if isinstance(found, tuple) else ((), found)
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
        first = len(entered)
        made = []

        def run(number: int, *operands: Array) -> tuple[list, list[list[Array]]]:
            """The outputs of a branch, and the arrays that enter its marks."""
            before = list(itertools.chain(*made[:number]))
            entered.extend(before)
            branch = branches[number]
            outputs = evaluate(branch.jaxpr, branch.consts, list(operands))
            inside = entered[first + len(before) :]
            del entered[first:]
            return outputs, inside

        def run_with_zeros(number: int, *operands: Array) -> tuple[list, list]:
            inside = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), made)
            outputs, inside[number] = run(number, *operands)
            return outputs, inside

        for number in range(len(branches)):
            made.append(jax.eval_shape(ft.partial(run, number), *operands)[1])
        every = [ft.partial(run_with_zeros, number) for number in range(len(branches))]
        outputs, inside = lax.switch(index, every, *operands)
        entered.extend(itertools.chain(*inside))
        return outputs

    values = evaluate(traced.jaxpr, traced.consts, jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(outputs), values), entered


def _has_marks(jaxpr: Any) -> bool:
    return any(
        eqn.primitive is _mark_p or any(map(_has_marks, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )
