"""A small equation, and a call with its right arguments."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide


KEY = jax.random.key(0)
WIDTH, TOKENS, VOCABULARY, CONTEXT = 4, 3, 7, 5
DOMAIN = ide.TokenDomain.uniform(TOKENS)
U0 = jnp.asarray(np.random.default_rng(0).normal(size=(TOKENS, WIDTH)))
TOKENS_OF_TEXT = jnp.array([1, 2, 3])


class Recipe(NamedTuple):
    """A call whose arguments are right, and a use of what it returns, which gives numbers."""

    call: Callable
    arguments: dict[str, Any]
    use: Callable[[Any], Any]


def block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    return (
        ide.Attention(WIDTH, 2, causal=True, normalization=norm, key=first),
        ide.FeedForward(WIDTH, 8, normalization=norm, key=second),
    )


@eqx.filter_jit
def made():
    """Made by one program; each operation by itself would be one."""
    control = ide.PiecewiseConstant.build(block, 2, key=KEY)
    return control, ide.Attention(WIDTH, 2, key=KEY), ide.FeedForward(WIDTH, 8, key=KEY)


CONTROL, ATTENTION, FEED_FORWARD = made()
SEEING_ALL = ide.Tied((ATTENTION,), 2)
EQUATION = ide.Equation(CONTROL, ide.Free(), DOMAIN)
DAMPED = ide.Equation(ide.Tied((ide.Damping(1.0), FEED_FORWARD), 2), ide.Free(), DOMAIN)


def solved(solver, equation=EQUATION):
    return ide.solve(equation, U0, solver=solver).u1


def applied(operator):
    return operator(U0, DOMAIN)
