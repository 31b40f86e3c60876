"""An input that enters at every depth, with every scheme."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from helpers import fast_first, largest
from solvers.linear_problem import TOKENS, WIDTH, Matrix, initial_state, matrices

import ide_transformer as ide
from ide_transformer.studies.convergence import equation_limit, schemes


STRENGTH = np.array([0.3, -0.2, 0.8, 0.0])
SOURCE = np.random.default_rng(3).normal(size=(TOKENS, WIDTH))
# Every scheme that solves the equation as it stands; few of them in the fast tests.
SOLVING = {
    name: entry
    for name, entry in schemes().items()
    if entry.limit is equation_limit and entry.free
}
FIRST = ("strang(heun)", "exponential_euler", "lie_trotter(euler)", "rk4", "adams_bashforth(2)")


def equation(*operators, intervals=2):
    control = ide.Tied((*operators, ide.Injection(STRENGTH)), intervals)
    sourced = ide.Sourced(control, jnp.asarray(SOURCE))
    return ide.Equation(sourced, ide.Free(), ide.TokenDomain.uniform(TOKENS))


def forced(matrix, depth):
    """The solution of `u_t = u M + κ f`, by the exponential of the matrix with a row more for
    each token's source."""
    u0, source = np.asarray(initial_state()), STRENGTH * SOURCE
    whole = np.zeros((2 * WIDTH, 2 * WIDTH))
    whole[:WIDTH, :WIDTH], whole[WIDTH:, :WIDTH] = matrix, np.eye(WIDTH)
    flow = scipy.linalg.expm(depth * whole)
    return (np.concatenate([u0, source], axis=1) @ flow)[:, :WIDTH]


@pytest.mark.parametrize("name", fast_first(2, dict.fromkeys([*FIRST, *SOLVING]), heavy=3))
def test_every_scheme_converges_to_the_forced_solution(name):
    entry, rates = SOLVING[name], np.linspace(0.2, 1.1, WIDTH)
    if entry.block == "damped":
        operator, matrix = ide.StableDamping(rates), np.diag(-rates)
    else:
        matrix = matrices(1)[0]
        operator = Matrix(jnp.asarray(matrix))
    expected = forced(matrix, 2.0)
    errors = []
    for steps in (8, 16):
        solve = eqx.filter_jit(ide.solve)
        found = solve(
            equation(operator), initial_state(), solver=entry.free, steps_per_interval=steps
        )
        errors.append(largest(found.u1, expected))
    assert errors[1] < max(0.6 * errors[0], 1e-10)
    assert errors[0] < 0.5


def test_exponential_euler_makes_the_step_of_parcae():
    """`e^{-hλ} u + h φ_1(-hλ) (κ ⊙ f + A(u))`, and exact for damping and injection alone."""
    rates, matrix = np.linspace(0.2, 3.0, WIDTH), matrices(1)[0]
    nonlinear = Matrix(jnp.asarray(matrix))
    whole = equation(ide.StableDamping(rates), nonlinear, intervals=3)
    u = np.asarray(initial_state())
    for _ in range(3):
        rate = STRENGTH * SOURCE + u @ matrix
        u = np.exp(-rates) * u + (1 - np.exp(-rates)) / rates * rate
    found = ide.solve(whole, initial_state(), solver=ide.ExponentialEuler()).u1
    assert largest(found, u) < 1e-13
    alone = equation(ide.StableDamping(rates), intervals=3)
    exact = ide.solve(alone, initial_state(), solver=ide.ExponentialEuler()).u1
    assert largest(exact, forced(np.diag(-rates), 3.0)) < 1e-13


def test_stable_damping_stays_positive_under_any_update():
    operator = ide.StableDamping(0.5)
    gradient = jax.grad(lambda x: x.rate.sum())(operator)
    far = jax.tree.map(lambda x, g: x - 100 * g, operator, gradient)
    assert 0 < float(far.rate) < 1e-20
    assert float(operator.rate) == pytest.approx(0.5)
    u = initial_state()
    domain = ide.TokenDomain.uniform(TOKENS)
    assert largest(operator(u, domain), -0.5 * u) < 1e-14
    assert largest(operator.flow(u, domain, 3.0), np.exp(-1.5) * u) < 1e-14
    with pytest.raises(ide.InputError, match="rate should be above 0"):
        ide.StableDamping(0.0)


def test_attention_to_a_source_of_another_shape_is_refused():
    attention = ide.Attention(WIDTH, 2, key=jax.random.key(0))
    operator = ide.SourcedAttention(attention, key=jax.random.key(1))
    u, domain = initial_state(), ide.TokenDomain.uniform(TOKENS)
    for source in (u[:1], jnp.stack([u, u])):
        with pytest.raises(ide.InputError, match=r"SourcedAttention: the source has shape"):
            operator.with_source(source)(u, domain)


def test_a_source_of_another_shape_is_refused():
    operator, u = ide.Injection(1.0), initial_state()
    with pytest.raises(ide.InputError, match="Injection has no source f"):
        operator(u, ide.TokenDomain.uniform(TOKENS))
    with pytest.raises(ide.InputError, match=r"source has shape \(2, 4\), but the state has"):
        operator.with_source(u[:2])(u, ide.TokenDomain.uniform(TOKENS))
    whole = ide.Equation(ide.Tied((operator,), 1), ide.Free(), ide.TokenDomain.uniform(TOKENS))
    with pytest.raises(ide.InputError, match="wrap the control"):
        ide.solve(whole, u, solver=diffrax.Euler())
