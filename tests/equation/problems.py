"""Operators and states of the tests of the equation.

Every operation outside of a compiled function is a program of its own, so these compile a
whole rate at once and draw states with NumPy."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from helpers import TOKENS, WIDTH

import ide_transformer as ide


DOMAIN = ide.TokenDomain.uniform(TOKENS)


def state(*batch, tokens=TOKENS, width=WIDTH, seed=2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(*batch, tokens, width)))


@eqx.filter_jit
def apply(operator, u, domain=DOMAIN):
    """The rate of an operator."""
    return operator(u, domain)


@eqx.filter_jit
def block_at(control, t):
    """The block of a control at depth t."""
    return control(t)
