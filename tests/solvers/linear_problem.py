"""Equations of matrices: quick to compile, and solved by the matrix exponential, or mixing
tokens in a way that is written down in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.compare.convergence import march
from tests.helpers import drawn


WIDTH, TOKENS = 4, 3


class Matrix(ide.AbstractOperator):
    """`A(u) = u M`."""

    matrix: jax.Array

    def __call__(self, u, domain):
        return u @ self.matrix


class Mixing(Matrix):
    """`A(u) = sin(1 + (u + ū) M)`, ū the mean over tokens."""

    def __call__(self, u, domain):
        return jnp.sin(1 + (u + domain.mean(u)[..., None, :]) @ self.matrix)


def after_layers(u, layers, h=1.0):
    """The states of Lie–Trotter with a step in each of some layers of `Mixing`, in NumPy."""
    states = [np.asarray(u)]
    for layer in layers:
        u = states[-1]
        for matrix in matrices(2, layers=3)[:, layer]:
            u = u + h * np.sin(1 + (u + u.mean(-2, keepdims=True)) @ matrix)
        states.append(u)
    return np.stack(states)


def matrices(operators, *, layers=None, size=0.4):
    """Matrices that do not commute; with `layers`, one for each layer."""
    shape = (operators, WIDTH, WIDTH) if layers is None else (operators, layers, WIDTH, WIDTH)
    return size * np.random.default_rng(1).normal(size=shape)


def initial_state(*batch):
    return drawn((*batch, TOKENS, WIDTH), seed=2)


def equation_of(control, constraint=None):
    constraint = ide.Free() if constraint is None else constraint
    return ide.Equation(control, constraint, ide.TokenDomain.uniform(TOKENS))


def tied_equation(*operators, intervals=2):
    """The same operators, or matrices, at all depths."""
    block = tuple(Matrix(jnp.asarray(x)) if isinstance(x, np.ndarray) else x for x in operators)
    return equation_of(ide.Tied(block, intervals))


def layered_equation(operators=2, layers=3, kind=Matrix, constraint=None, size=0.4):
    """Other matrices in each layer."""
    drawn = matrices(operators, layers=layers, size=size)
    blocks = tuple(kind(jnp.asarray(matrix)) for matrix in drawn)
    return equation_of(ide.PiecewiseConstant(blocks), constraint)


def final(equation, solver, steps_per_interval=1):
    """The state at T by `march`, which costs less to compile than `solve`."""
    u0 = equation.constraint(0.0).project(initial_state())
    return np.asarray(march(equation, u0, solver, jnp.asarray(steps_per_interval)))
