"""Equations of matrices: quick to compile, and solved by the matrix exponential."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

import ide_transformer as ide


WIDTH, TOKENS = 4, 3


class Matrix(ide.AbstractOperator):
    """`A(u) = u M`."""

    matrix: jax.Array

    def __call__(self, u, domain):
        return u @ self.matrix


def matrices(number, *, layers=None, size=0.4):
    """Matrices that do not commute; with `layers`, one for each layer."""
    shape = (number, WIDTH, WIDTH) if layers is None else (number, layers, WIDTH, WIDTH)
    return size * np.random.default_rng(1).normal(size=shape)


def initial_state():
    return jnp.asarray(np.random.default_rng(2).normal(size=(TOKENS, WIDTH)))


def tied_equation(*operators, intervals=2, constraint=None):
    """The same operators, or matrices, at all depths."""
    block = tuple(Matrix(jnp.asarray(x)) if isinstance(x, np.ndarray) else x for x in operators)
    constraint = ide.Free() if constraint is None else constraint
    domain = ide.TokenDomain.uniform(TOKENS)
    return ide.Equation(ide.Tied(block, intervals), constraint, domain)


def layered_equation(number=2, layers=3):
    """Other matrices in each layer."""
    blocks = tuple(Matrix(jnp.asarray(m)) for m in matrices(number, layers=layers))
    control = ide.PiecewiseConstant(blocks)
    return ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))


def exact(matrix, depth=2.0):
    """The solution of `u_t = u M`."""
    return np.asarray(initial_state()) @ scipy.linalg.expm(depth * matrix)


def final(equation, solver, steps_per_interval=1):
    """The state at T after a plain march, which costs less to compile than `solve`."""
    u0 = equation.constraint(0.0).project(initial_state())
    return np.asarray(_march(equation, u0, solver, steps_per_interval))


@eqx.filter_jit
def _march(equation, u0, solver, steps):
    def interval(carry, inputs):
        index, weights = inputs
        terms = equation.interval_terms(index, weights)

        def step(carry, k):
            jump = (k == 0) & (not equation.continuous)
            t0, t1 = index + k / steps, index + (k + 1) / steps
            u, _, _, state, _ = solver.step(terms, t0, t1, carry[0], None, carry[1], jump)
            return (u, state), None

        return jax.lax.scan(step, carry, jnp.arange(steps))

    indices = jnp.arange(equation.control.num_intervals, dtype=float)
    zero = jnp.zeros(())
    carry = u0, solver.init(equation.terms_of(0), zero, zero + 1 / steps, u0, None)
    return jax.lax.scan(interval, carry, (indices, equation.intervals()))[0][0]


def difference(u, v):
    return np.abs(np.asarray(u) - np.asarray(v)).max()
