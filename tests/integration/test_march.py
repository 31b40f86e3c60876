"""The march of fixed steps: against diffrax, exact solutions and loops over layers."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import TOKENS, fast_first, largest, make_block, make_equation, random_state
from integration.exploding import exploding

import ide_transformer as ide


U0 = random_state(2)


@pytest.mark.parametrize(
    "solver",
    fast_first(
        2,
        [
            diffrax.Bosh3(),
            ide.Strang(),
            diffrax.ReversibleHeun(),
            diffrax.Euler(),
            diffrax.LeapfrogMidpoint(),
            ide.RK4(),
            diffrax.Heun(),
            diffrax.Ralston(),
            diffrax.Tsit5(),
            diffrax.Dopri5(),
            diffrax.Dopri8(),
        ],
        heavy=3,
    ),
    ids=repr,
)
def test_by_hand_where_the_control_is_continuous(solver):
    """Also the schemes that carry a state from step to step, through the boundaries."""
    equation = make_equation(ide.PiecewiseLinear, intervals=2)
    marched = ide.solve(equation, U0, solver=solver, steps_per_interval=2).u1
    assert largest(marched, by_hand(equation, solver, 2.0, 0.5, U0)) < 1e-13


@eqx.filter_jit
def by_hand(equation, solver, end, h, u0):
    return diffrax.diffeqsolve(equation.terms, solver, 0.0, end, h, u0).ys[0]


@pytest.mark.heavy
def test_by_hand_where_the_control_is_constant():
    equation, solver = make_equation(ide.Tied), ide.Strang()
    marched = ide.solve(equation, U0, solver=solver, steps_per_interval=2).u1
    assert largest(marched, by_hand(equation, solver, 3.0, 0.5, U0)) < 1e-13


def test_by_hand_on_layers():
    """Schemes without an end-point stage agree; with one they read the next layer there."""
    equation = make_equation()
    u0 = random_state()

    def difference(solver):
        marched = ide.solve(equation, u0, solver=solver).u1
        return largest(marched, by_hand(equation, solver, 3.0, 1.0, u0))

    assert difference(ide.LieTrotter()) < 1e-13
    assert difference(diffrax.Heun()) > 1e-3


@eqx.filter_jit
def after_layer(equation, t, u):
    for operator in equation.control(t):
        u = u + operator(u, equation.domain)
    return u


def test_states_of_all_layers():
    equation = make_equation()
    u0 = random_state()
    solution = ide.solve(
        equation, u0, solver=ide.LieTrotter(), saveat=diffrax.SaveAt(ts=equation.knots)
    )
    u = u0
    assert (solution.us[0] == u0).all()
    assert (solution.us[3] == solution.u1).all()
    for layer in range(3):
        assert largest(solution.us[layer], u) < 1e-13
        u = after_layer(equation, float(layer), u)
    assert largest(solution.us[3], u) < 1e-13


@pytest.mark.heavy
def test_float32_states_stay_float32():
    equation = jax.tree.map(lambda x: x.astype(jnp.float32), make_equation(intervals=1))
    u0 = random_state().astype(jnp.float32)
    for options in ({}, {"stepsize_controller": diffrax.PIDController(1e-3, 1e-3)}):
        solution = ide.solve(equation, u0, solver=diffrax.Bosh3(), **options)
        assert solution.u1.dtype == jnp.float32


def test_an_operator_of_a_user():
    """1/u falls linearly: u(t) = 1 / (1/u0 - t c)."""
    equation = exploding([0.1, 0.2])
    u1 = ide.solve(equation, jnp.ones((TOKENS, 2)), solver=ide.RK4(), steps_per_interval=16).u1
    assert largest(u1, 1 / 0.7) < 1e-6


def test_a_failed_march_says_which_and_where():
    equation = exploding([0.1, 1e200, 1.0])
    with pytest.raises(Exception, match="between depths 1 and 2 of 3 with nonfinite"):
        ide.solve(equation, jnp.ones((TOKENS, 2)), solver=ide.RK4())
    solution = ide.solve(equation, jnp.ones((TOKENS, 2)), solver=ide.RK4(), throw=False)
    assert solution.result == diffrax.RESULTS.nonfinite
    assert float(solution.failed_at) == 2.0
    assert not solution.succeeded


def test_padding_and_weights_come_with_the_domain():
    equation = make_equation()
    mask = jnp.arange(TOKENS)[None, :] < jnp.array([[3], [6]])
    padded = ide.Equation(equation.control, ide.Free(), equation.domain.padded(mask))
    u0 = random_state(2)
    u1 = ide.solve(padded, u0, solver=ide.LieTrotter()).u1
    short = ide.Equation(equation.control, ide.Free(), ide.TokenDomain.uniform(3))
    alone = ide.solve(short, u0[0, :3], solver=ide.LieTrotter()).u1
    assert largest(u1[0, :3], alone) < 1e-13
    for state in (u0[0], random_state(3), random_state(1, 2, 3)):
        with pytest.raises(ide.InputError, match=r"a mask, of shape \(2, 6\); u0 must be"):
            ide.solve(padded, state, solver=ide.LieTrotter())


def test_padding_does_not_move_a_steady_state():
    """Where there is one only, as a relaxation to the input makes it."""
    block = (*make_block(jax.random.key(1), std=0.05, causal=False), ide.Relaxation(4.0))
    mask = jnp.arange(TOKENS)[None, :] < jnp.array([[3], [6]])
    domains = ide.TokenDomain.uniform(TOKENS).padded(mask), ide.TokenDomain.uniform(3)
    u0 = random_state(2).at[0, 3:].multiply(1e3)

    def found(domain):
        u = u0[:, : domain.num_tokens]
        equation = ide.Equation(ide.Sourced(ide.Tied(block, 1), u), ide.Free(), domain)
        return ide.solve(equation, u, solver=ide.SteadyState(diffrax.Euler())).u1

    padded, short = map(found, domains)
    assert largest(padded[0, :3], short[0]) < 1e-10
