"""Gradient modes whose memory does not grow with depth: recursive and reversible."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, fast_first, largest, make_equation, random_state

import ide_transformer as ide


U0 = random_state()
TARGET = random_state(seed=11)
REVERSIBLE = ide.AlgebraicallyReversible
GAIN, BIAS = jnp.linspace(0.5, 2.0, WIDTH), jnp.linspace(-1.0, 1.0, WIDTH)


# On the way back a projection divides by the gain, here layer after layer.
NEAR_ONE = jnp.linspace(0.95, 1.05, WIDTH)


def post_norm(constraint, intervals):
    return make_equation(
        intervals=intervals, constraint=constraint, normalization=ide.Free(), std=0.1
    )


CASES = {
    "pre-norm": (lambda n: make_equation(intervals=n), REVERSIBLE(ide.LieTrotter())),
    "post-norm": (
        lambda n: post_norm(ide.LayerNorm(NEAR_ONE, 0.1 * BIAS), n),
        ide.projected(REVERSIBLE(ide.LieTrotter())),
    ),
    "on the sphere": (
        lambda n: post_norm(ide.RMSSphere(NEAR_ONE), n),
        ide.projected(REVERSIBLE(diffrax.Heun())),
    ),
    "on the sphere, split": (
        lambda n: post_norm(ide.RMSSphere(NEAR_ONE), n),
        ide.projected(REVERSIBLE(ide.Strang(diffrax.Heun()))),
    ),
    "leapfrog of blocks": (
        lambda n: make_equation(ide.PiecewiseLinear, intervals=n, std=0.02),
        ide.Residual(ide.Leapfrog()),
    ),
    "tied": (lambda n: make_equation(ide.Tied, intervals=n), REVERSIBLE(diffrax.Heun())),
}


def gradient_of(equation, u0, solver, mode, steps=1):
    """The gradient with respect to all weights and the initial state, as one vector."""

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(pair):
        solution = ide.solve(
            *pair, solver=solver, gradient=mode, steps_per_interval=steps, throw=False
        )
        return jnp.mean((solution.u1 - TARGET.astype(u0.dtype)) ** 2)

    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient((equation, u0)))])


def relative(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("case", fast_first(1, CASES, heavy=2))
def test_modes_agree_at_48_layers(case):
    make, solver = CASES[case]
    equation = make(48)
    direct = gradient_of(equation, U0, solver, ide.Direct())
    assert relative(gradient_of(equation, U0, solver, ide.Reversible()), direct) < 1e-10
    if case == "pre-norm":
        default = gradient_of(equation, U0, solver, ide.Recompute())
        assert relative(default, direct) < 1e-10


@pytest.mark.heavy
@pytest.mark.parametrize("case", fast_first(0, ["pre-norm", "post-norm"], heavy=1))
def test_modes_agree_in_float32(case):
    make, solver = CASES[case]
    equation = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, make(48)
    )
    u0 = U0.astype(jnp.float32)
    direct = gradient_of(equation, u0, solver, ide.Direct())
    assert direct.dtype == jnp.float32
    assert relative(gradient_of(equation, u0, solver, ide.Reversible()), direct) < 1e-4


@pytest.mark.heavy
@pytest.mark.parametrize("case", fast_first(0, ["leapfrog of blocks", "pre-norm"], heavy=1))
def test_steps_inside_an_interval_are_undone_too(case):
    make, solver = CASES[case]
    equation = make(3)
    direct = gradient_of(equation, U0, solver, ide.Direct(), steps=2)
    reversible = gradient_of(equation, U0, solver, ide.Reversible(), steps=2)
    assert relative(reversible, direct) < 1e-12


@pytest.mark.parametrize(
    ("levels", "intervals"),
    fast_first(1, [(3, 13), (1, 3), (2, 7), (2, 48), (5, 4), (9, 8)], heavy=2),
)
def test_recursive_checkpoints_of_any_depth(levels, intervals):
    equation = make_equation(intervals=intervals)
    direct = gradient_of(equation, U0, ide.LieTrotter(), ide.Direct())
    recursive = gradient_of(equation, U0, ide.LieTrotter(), ide.Recursive(levels))
    assert relative(recursive, direct) < 1e-13


def test_a_march_from_zero_has_a_gradient():
    equation = make_equation(intervals=8, normalization=ide.Free())
    u0, solver = jnp.zeros_like(U0), REVERSIBLE(ide.LieTrotter())
    direct = gradient_of(equation, u0, solver, ide.Direct())
    assert relative(gradient_of(equation, u0, solver, ide.Reversible()), direct) < 1e-10
    errors = ide.rebuilding_error(equation, u0, solver=solver)
    assert 0 < errors[0] < 1e-12


@pytest.mark.heavy
def test_states_at_the_knots_and_their_gradient():
    equation, solver = make_equation(intervals=4), REVERSIBLE(ide.LieTrotter())

    def both(mode):
        def loss(u0):
            us = ide.solve(
                equation,
                u0,
                solver=solver,
                gradient=mode,
                saveat=diffrax.SaveAt(ts=equation.knots),
            ).us
            return jnp.sum(jnp.cos(us)), us

        return jax.value_and_grad(loss, has_aux=True)(U0)

    (_, us), gradient = both(ide.Reversible())
    (_, expected_us), expected = both(ide.Direct())
    assert largest(us, expected_us) < 1e-13
    assert largest(gradient, expected) < 1e-12


@pytest.mark.parametrize(
    "constraint",
    [
        ide.Free(),
        ide.Sphere(GAIN, BIAS),
        ide.LayerNorm(GAIN, BIAS),
        ide.RMSSphere(GAIN, eps=1e-5),
        ide.RMSNorm(GAIN),
    ],
    ids=lambda c: type(c).__name__,
)
def test_scales_undo_a_projection(constraint):
    scales, rebuilt = there_and_back(constraint, U0)
    assert all(x.shape == (*U0.shape[:-1], 1) for x in jax.tree.leaves(scales))
    assert largest(rebuilt, U0) < 1e-13


@eqx.filter_jit
def there_and_back(constraint, u):
    scales = constraint.scales(u)
    return scales, constraint.unproject(constraint.project(u), scales)


def test_rounding_grows_on_the_way_back_as_the_coupling_says():
    equation = make_equation(intervals=48)
    errors = {
        coupling: np.asarray(
            eqx.filter_jit(ide.rebuilding_error)(
                equation, U0, solver=REVERSIBLE(ide.LieTrotter(), coupling=coupling)
            )
        )
        for coupling in (0.99, 0.7)
    }
    assert errors[0.99].shape == (48,)
    assert errors[0.99][0] < 1e-12
    # Of the 48 steps each multiplies by 1/0.7, which makes 3e7.
    assert 1e3 * errors[0.99][0] < errors[0.7][0]
    assert errors[0.7][-1] < 1e-14


@pytest.mark.heavy
def test_a_gradient_spoilt_by_rounding_is_an_error():
    equation = make_equation(intervals=48)
    solver = REVERSIBLE(ide.LieTrotter(), coupling=0.3)
    mode = ide.Reversible()
    assert np.isnan(gradient_of(equation, U0, solver, mode)).all()

    def loss(u0):
        return jnp.sum(ide.solve(equation, u0, solver=solver, gradient=mode).u1)

    with pytest.raises(Exception, match="rebuilt initial state differs"):
        jax.block_until_ready(jax.grad(loss)(U0))


def solve(equation=None, **options):
    equation = make_equation(intervals=2) if equation is None else equation
    return ide.solve(equation, U0, gradient=ide.Reversible(), **options)


def test_what_cannot_be_undone_is_refused(unchecked):
    with pytest.raises(ide.InputError, match=r"AlgebraicallyReversible\(LieTrotter\(…\)\)"):
        solve(solver=ide.LieTrotter())
    with pytest.raises(ide.InputError, match="PiecewiseLinear"):
        solve(solver=ide.Leapfrog())
    with pytest.raises(ide.InputError, match="PiecewiseLinear"):
        solve(solver=ide.Residual(ide.Leapfrog()))
    with pytest.raises(ide.InputError, match=r"SaveAt\(ts=equation.knots\)"):
        solve(solver=REVERSIBLE(ide.RK4()), saveat=diffrax.SaveAt(dense=True))
    with pytest.raises(ide.InputError, match="Nonnegative cannot be undone"):
        solve(
            make_equation(intervals=2, constraint=ide.Nonnegative()),
            solver=ide.Projected(REVERSIBLE(ide.RK4())),
        )
    with pytest.raises(ide.InputError, match="use gradient=Recompute"):
        solve(
            solver=diffrax.Tsit5(),
            stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        )
    with pytest.raises(ide.InputError, match="ImplicitEuler is implicit; only explicit"):
        solve(solver=REVERSIBLE(ide.ImplicitEuler()))
    with pytest.raises(ide.InputError, match="AdamsBashforth uses earlier steps"):
        solve(solver=REVERSIBLE(ide.AdamsBashforth(2)))
    with pytest.raises(ide.InputError, match=r"coupling=0"):
        REVERSIBLE(ide.RK4(), coupling=0.0)
    with pytest.raises(ide.InputError, match=r"levels=0"):
        ide.Recursive(0)
