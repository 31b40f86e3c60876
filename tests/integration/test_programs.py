"""Traced programs with marked places, on all kinds of operations that hold programs."""

import functools as ft

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ide_transformer.integration.marked_programs import MarkInLoop, mark, run_marked


def program(marked):
    """A program of one argument with four marks: plain, in a compiled part, and one in each
    branch of a choice; loops, and `relu`, which has a derivative of its own, between them."""

    def run(x, index):
        (x,) = marked([x])
        x = x**2 + jax.nn.relu(x)
        x, sums = lax.scan(lambda c, _: (0.5 * c + 1, jnp.sum(c)), x, None, length=3)
        x = jax.jit(lambda x: marked([jnp.sin(x)])[0] + 1)(x)
        x = lax.cond(
            index > 0,
            lambda x: 2 * marked([x + 1, x])[1],
            lambda x: jax.checkpoint(jnp.cos)(marked([x[::-1]])[0]),
            x,
        )
        x = lax.while_loop(lambda x: jnp.sum(x) < 10, lambda x: x + 1, x)
        return {"state": x, "sums": sums}

    return run


X = np.array([0.3, -1.2, 0.7])


def marked(arrays):
    return mark(arrays, axis=0, size=3)


def test_marks_in_a_loop_are_refused():
    loop = lambda x: lax.fori_loop(0, 2, lambda _, x: marked([x])[0], x)  # noqa: E731
    with pytest.raises(MarkInLoop):
        run_marked(loop, lambda _, arrays, *__: arrays, X)


def test_a_program_is_run_with_its_marks_filled():
    """A fill that gives arrays times their number: the program written without marks, in
    which each place multiplies by its own."""

    def fill(number, arrays, axis, size):
        assert (axis, size) == (0, 3)
        return [(number + 2) * x for x in arrays]

    for index, taken in ((1, 3), (0, 2)):
        numbers, entered_plain = iter([0, 1, taken]), []

        def plain(arrays, numbers=numbers, entered_plain=entered_plain):
            entered_plain.append(arrays)
            return fill(next(numbers), arrays, 0, 3)

        with jax.disable_jit():
            expected = program(plain)(jnp.asarray(X), index)
        outputs, entered = jax.jit(ft.partial(run_marked, program(marked), fill))(X, index)
        assert [len(arrays) for arrays in entered] == [1, 1, 1, 2]
        in_order = entered[0], entered[1], entered[taken]
        both = jax.tree.leaves((outputs, in_order)), jax.tree.leaves((expected, entered_plain))
        for found, known in zip(*both, strict=True):
            np.testing.assert_allclose(found, known, rtol=1e-12)
        # The branch that is not taken gives zeros.
        np.testing.assert_array_equal(np.array(entered[5 - taken]), 0)
