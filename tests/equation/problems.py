"""Operators and states of the tests of the equation.

Every operation outside of a compiled function is a program of its own, so these compile a
whole rate at once and draw states with NumPy."""

import equinox as eqx
import numpy as np
from helpers import TOKENS, WIDTH, random_state

import ide_transformer as ide


state = random_state
DOMAIN = ide.TokenDomain.uniform(TOKENS)


@eqx.filter_jit
def made(make, *options):
    """The result of a function, computed by one program."""
    return make(*options)


@eqx.filter_jit
def apply(operator, u, domain=DOMAIN):
    """The rate of an operator."""
    return operator(u, domain)


def linear_block(key):
    """A block of one operator."""
    return (ide.FeedForward(WIDTH, 4, key=key, std=0.5),)


def weight_at(control, t):
    """A weight of `linear_block` at depth t."""
    return block_at(control, t)[0].inner.weight


def block_at(control, t):
    """The block of a control at depth t, by one program for all depths."""
    return _block_at(control, np.asarray(t, float))


@eqx.filter_jit
def _block_at(control, t):
    return control(t)


@eqx.filter_jit
def project(constraint, u):
    return constraint.project(u)


def equations_of(jaxpr):
    """All equations of a program, also inside of other ones."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from equations_of(inner)
