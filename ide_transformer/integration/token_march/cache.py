"""What the field evaluations of a program remember of tokens: taken out of it, and put in
where the program is run on new tokens alone."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Literal, Primitive, jaxprs_in_params
from jax.extend.core.primitives import cond_p, jit_p
from jaxtyping import Array, Int, PyTree


# One field evaluation at its place in a program: what is remembered of the tokens of the state
# goes in, what is remembered of all tokens comes out. It can only be traced; `with_memory`
# gives it a meaning.
_remember_p = Primitive("remember")
_remember_p.multiple_results = True


@_remember_p.def_abstract_eval
def _of_all(*new, axis: int, tokens: int):
    return [x.update(shape=(*x.shape[:axis], tokens, *x.shape[axis + 1 :])) for x in new]


def remember(new: PyTree[Array], *, axis: int, tokens: int) -> PyTree[Array]:
    """What this evaluation remembers of all tokens, inside of a program for `with_memory`.

    **Arguments:**

    - `new`: what is remembered of the tokens of the state.
    - `axis`: their axis.
    - `tokens`: how many there are in all.
    """
    leaves, structure = jax.tree.flatten(new)
    return jax.tree.unflatten(structure, _remember_p.bind(*leaves, axis=axis, tokens=tokens))


def with_memory(program: Callable) -> Callable:
    """The program `(*arguments) ↦ outputs` as a pure function of what is remembered,

        (memory, start, *arguments) ↦ (outputs, new),

    with, for each evaluation in the program, a list of arrays for all tokens in `memory` and
    one for the tokens of the state, which are those from `start` on, in `new`. With `None` for
    the memory they are all the tokens there are. An evaluation in the branch of a `lax.cond`
    that is not taken gives zeros.
    """

    def remembering(memory: list | None, start: Int[Array, ""] | int, *arguments: PyTree):
        traced, outputs = jax.make_jaxpr(program, return_shape=True)(*arguments)
        memories = itertools.repeat(None) if memory is None else iter(memory)
        values = jax.tree.leaves(arguments)
        values, new = _evaluate(traced.jaxpr, traced.consts, values, memories, start)
        if memory is not None and len(new) != len(memory):
            raise RuntimeError(f"{len(memory)} evaluations remembered, but {len(new)} made.")
        return jax.tree.unflatten(jax.tree.structure(outputs), values), new

    return remembering


def evaluations_in_order(program: Callable, *arguments: PyTree) -> int | None:
    """The number of evaluations in a program; `None` if some are made in a loop, in which
    they cannot be told apart."""
    return _in_order(jax.make_jaxpr(program)(*arguments).jaxpr)


def _in_order(jaxpr: Jaxpr) -> int | None:
    number = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive is _remember_p:
            number += 1
            continue
        inside = [_in_order(sub) for sub in jaxprs_in_params(eqn.params)]
        if any(count is None or count > 0 for count in inside):
            if None in inside or eqn.primitive not in (cond_p, jit_p):
                return None
            number += sum(inside)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return number


def _evaluate(
    jaxpr: Jaxpr,
    constants: list,
    arguments: list,
    memories: Iterator[list | None],
    start: Int[Array, ""] | int,
) -> tuple[list, list[list]]:
    """The outputs of a program and what its evaluations remember of new tokens, in order."""
    values: dict = {}
    new: list[list] = []

    def read(x):
        return x.val if isinstance(x, Literal) else values[x]

    values.update(zip(jaxpr.constvars, constants, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for eqn in jaxpr.eqns:
        inputs = [read(x) for x in eqn.invars]
        if eqn.primitive is _remember_p:
            outputs = _put(next(memories), inputs, start, **eqn.params)
            new.append(inputs)
        elif not any(map(_in_order, jaxprs_in_params(eqn.params))):
            outputs = _bind(eqn, inputs)
        elif eqn.primitive is cond_p:
            outputs, remembered = _branch(eqn.params["branches"], inputs, memories, start)
            new += remembered
        else:
            inner = eqn.params["jaxpr"]
            outputs, remembered = _evaluate(inner.jaxpr, inner.consts, inputs, memories, start)
            new += remembered
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars], new


def _put(memory: list | None, new: list, start, *, axis: int, tokens: int) -> list:
    """What is remembered of all tokens."""
    if memory is None:
        return new
    return [
        lax.dynamic_update_slice_in_dim(of_all, x, start, axis)
        for of_all, x in zip(memory, new, strict=True)
    ]


def _branch(
    branches: tuple[Any, ...], inputs: list, memories: Iterator[list | None], start
) -> tuple[list, list[list]]:
    """A `lax.cond` in which each branch also gives what is remembered in all of them."""
    index, *operands = inputs
    structures = [list(_structures(branch.jaxpr)) for branch in branches]
    taken = [list(itertools.islice(memories, len(found))) for found in structures]

    def run(chosen: int) -> Callable:
        def branch(*operands):
            closed = branches[chosen]
            outputs, new = _evaluate(
                closed.jaxpr, closed.consts, list(operands), iter(taken[chosen]), start
            )
            remembered = [
                new
                if i == chosen
                else [[jnp.zeros(x.shape, x.dtype) for x in y] for y in found]
                for i, found in enumerate(structures)
            ]
            return outputs, remembered

        return branch

    outputs, remembered = lax.switch(index, [run(i) for i in range(len(branches))], *operands)
    return outputs, list(itertools.chain(*remembered))


def _structures(jaxpr: Jaxpr) -> Iterator[list]:
    """Shapes and types of what the evaluations remember of new tokens, in order."""
    for eqn in jaxpr.eqns:
        if eqn.primitive is _remember_p:
            yield [x.aval for x in eqn.invars]
        for sub in jaxprs_in_params(eqn.params):
            yield from _structures(sub)


def _bind(eqn: JaxprEqn, inputs: list) -> list:
    found: Any = eqn.primitive.get_bind_params(eqn.params)
    functions, parameters = found if isinstance(found, tuple) else ((), found)
    with eqn.ctx.manager:
        outputs = eqn.primitive.bind(*functions, *inputs, **parameters)
    return outputs if eqn.primitive.multiple_results else [outputs]
