"""Operators and states of the tests of the equation.

Every operation outside of a compiled function is a program of its own, so these compile a
whole rate at once and draw states with NumPy."""

import equinox as eqx
import numpy as np

import ide_transformer as ide
from tests.helpers import TOKENS, random_state
from tests.published.numpy_blocks import attended as attended, softmax_kernel as softmax_kernel


state = random_state
DOMAIN = ide.TokenDomain.uniform(TOKENS)


@eqx.filter_jit
def computed(make, *options):
    return make(*options)


@eqx.filter_jit
def apply(operator, u, domain=DOMAIN):
    return operator(u, domain)


def block_at(control, t):
    """The block of a control at depth t, by one program for all depths."""
    return computed(control, np.asarray(t, float))


@eqx.filter_jit
def project(constraint, u):
    return constraint.project(u)
