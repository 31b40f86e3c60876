"""Traced programs with marked places.

jax has no public way to run a traced program and to change some of its operations. This file
is the only one that reads programs of jax, their equations and their parameters; the rest of
the package knows just `mark`, `marks_in_order` and `run_marked`. A new version of jax may
change them; then the test of this file fails."""

import itertools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Primitive, jaxprs_in_params
from jax.extend.core.primitives import cond_p, jit_p
from jaxtyping import Array, PyTree


# `fill(number, arrays, axis, size)` gives the arrays that leave the mark of this number.
Fill: TypeAlias = Callable[[int, list[Array], int, int], list[Array]]

_mark_p = Primitive("mark")
_mark_p.multiple_results = True


@_mark_p.def_abstract_eval
def _marked(*arrays, axis: int, size: int):
    return [x.update(shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])) for x in arrays]


def mark(arrays: PyTree[Array], *, axis: int, size: int) -> PyTree[Array]:
    """Marks a place in a program: arrays go in, and arrays with `size` entries on `axis`,
    otherwise of the same shapes, come out. It can only be traced; `run_marked` gives it a
    meaning."""
    leaves, structure = jax.tree.flatten(arrays)
    return jax.tree.unflatten(structure, _mark_p.bind(*leaves, axis=axis, size=size))


def marks_in_order(program: Callable, *arguments: PyTree) -> int | None:
    """The number of marks in a program; `None` if some are in a loop, in which they cannot
    be told apart."""
    entering = _entering(jax.make_jaxpr(program)(*arguments).jaxpr)
    return None if entering is None else len(entering)


def run_marked(
    program: Callable, fill: Fill, *arguments: PyTree
) -> tuple[PyTree, list[list[Array]]]:
    """The outputs of a program in which `fill` gives the arrays that leave each mark, and
    the arrays that entered them, in order. Those that enter a mark in the branch of a
    `lax.cond` that is not taken are zeros."""
    traced, outputs = jax.make_jaxpr(program, return_shape=True)(*arguments)
    leaves = jax.tree.leaves(arguments)
    values, entered = _evaluate(traced.jaxpr, traced.consts, leaves, fill, 0)
    return jax.tree.unflatten(jax.tree.structure(outputs), values), entered


def _entering(jaxpr: Any) -> list[list] | None:
    """Shapes and types of the arrays that enter the marks, in order; `None` if some marks are
    in a loop."""
    entering = []
    for eqn in jaxpr.eqns:
        if eqn.primitive is _mark_p:
            shapes = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in eqn.invars]
            entering.append(shapes)
        for sub in jaxprs_in_params(eqn.params):
            inside = _entering(sub)
            if inside is None or (inside and eqn.primitive not in (cond_p, jit_p)):
                return None
            entering += inside
    return entering


def _evaluate(
    jaxpr: Jaxpr, constants: list, arguments: list, fill: Fill, first: int
) -> tuple[list, list[list]]:
    """The outputs of a program whose marks are numbered from `first`, and the arrays that
    entered them."""
    values: dict = {}
    entered: list[list] = []

    def read(x):
        return x.val if isinstance(x, Literal) else values[x]

    values.update(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(x) for x in eqn.invars]
        number = first + len(entered)
        if eqn.primitive is _mark_p:
            outputs = fill(number, inputs, eqn.params["axis"], eqn.params["size"])
            inside = [inputs]
        elif not any(map(_entering, jaxprs_in_params(eqn.params))):
            outputs, inside = _bind(eqn, inputs), []
        elif eqn.primitive is cond_p:
            outputs, inside = _branch(eqn.params["branches"], inputs, fill, number)
        else:
            inner = eqn.params["jaxpr"]
            outputs, inside = _evaluate(inner.jaxpr, inner.consts, inputs, fill, number)
        entered += inside
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars], entered


def _branch(
    branches: tuple[Any, ...], inputs: list, fill: Fill, first: int
) -> tuple[list, list[list]]:
    """A `lax.cond` in which each branch also gives the arrays for the marks of all."""
    index, *operands = inputs
    shapes = [_entering(branch.jaxpr) or [] for branch in branches]

    def run(chosen: int, first: int) -> Callable:
        def branch(*operands):
            closed = branches[chosen]
            outputs, inside = _evaluate(
                closed.jaxpr, closed.consts, list(operands), fill, first
            )
            entered = [jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), x) for x in shapes]
            entered[chosen] = inside
            return outputs, entered

        return branch

    firsts = itertools.accumulate(map(len, shapes[:-1]), initial=first)
    outputs, entered = lax.switch(
        index, [run(i, start) for i, start in enumerate(firsts)], *operands
    )
    return outputs, list(itertools.chain(*entered))


def _bind(eqn: JaxprEqn, inputs: list) -> list:
    """The outputs of an operation, made once more."""
    found: Any = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = found if isinstance(found, tuple) else ((), found)
    with eqn.ctx.manager:
        outputs = eqn.primitive.bind(*functions, *inputs, **parameters)
    return outputs if eqn.primitive.multiple_results else [outputs]
