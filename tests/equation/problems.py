"""Operators and states of the tests of the equation.

Every operation outside of a compiled function is a program of its own, so these compile a
whole rate at once and draw states with NumPy."""

import equinox as eqx
import numpy as np
from helpers import TOKENS, random_state
from published.numpy_blocks import linear

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


def attended(operator, u, f, g, weights, kernel):
    """Attention in NumPy, of queries made of u, keys of f and values of g."""
    pairs = (operator.query, u), (operator.key, f), (operator.value, g)
    query, key, value = (
        linear(x, v).reshape(len(v), operator.heads, -1).swapaxes(0, 1) for x, v in pairs
    )
    gamma = kernel(query, key) * weights
    mixed = gamma / gamma.sum(-1, keepdims=True) @ value
    return linear(operator.output, mixed.swapaxes(0, 1).reshape(len(query[0]), -1))


def softmax_kernel(query, key):
    return np.exp(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]))


def block_at(control, t):
    """The block of a control at depth t, by one program for all depths."""
    return made(control, np.asarray(t, float))


@eqx.filter_jit
def project(constraint, u):
    return constraint.project(u)
