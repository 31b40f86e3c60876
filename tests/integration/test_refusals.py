"""Arguments that `solve` refuses, and what it says."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import TOKENS, WIDTH, make_equation, random_state

import ide_transformer as ide


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-9)
EQUATION = make_equation()
U0 = random_state()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"u0": U0[:4]}, r"u0 has shape \(4, 16\).*6 tokens"),
        ({"u0": U0[0]}, r"u0=f64\[16\]: u0 should be an instance of Float"),
        ({"u0": U0[None][:0]}, r"u0 has shape \(0, 6, 16\).*not empty"),
        ({"u0": U0.tolist()}, r"u0=\[\[.*\u2026: u0 should be an instance of Float"),
        ({"u0": U0.at[0, 0].set(jnp.nan)}, r"u0=f64\[6,16\]: u0 should be finite"),
        ({"u0": U0.astype(jnp.bfloat16)}, "u0 has dtype bfloat16; the state needs float32"),
        ({"solver": diffrax.Heun}, r"instance of AbstractSolver; write Heun\("),
        ({"u0": U0[:, :8]}, "acts on 16 features"),
        ({"u0": jnp.zeros((TOKENS, WIDTH), int)}, r"u0=i64\[6,16\]: u0 should be an instance"),
        ({"steps_per_interval": 0}, "steps_per_interval should be greater than 0"),
        ({"steps_per_interval": 1.5}, "steps_per_interval should be a valid integer"),
        ({"stepsize_controller": TIGHT}, r"LieTrotter has no error estimate.*HalfSolver"),
        (
            {"solver": diffrax.KenCarp3()},
            "KenCarp3 leaves the tolerances of its root finder open",
        ),
        ({"solver": ide.RK4(), "stepsize_controller": TIGHT}, "RK4 has no error estimate"),
        (
            {"solver": diffrax.Tsit5(), "stepsize_controller": TIGHT, "steps_per_interval": 2},
            "drop steps_per_interval",
        ),
        (
            {
                "solver": diffrax.Tsit5(),
                "stepsize_controller": diffrax.PIDController(rtol=-1e-3, atol=1e-3),
            },
            "stepsize_controller: rtol=-0.001 is below 0",
        ),
        ({"saveat": diffrax.SaveAt(ts=jnp.ones((2, 2)))}, "a list of depths in"),
        ({"gradient": diffrax.BacksolveAdjoint()}, "wrong for layered weights"),
        (
            {
                "solver": diffrax.Tsit5(),
                "stepsize_controller": TIGHT,
                "gradient": diffrax.BacksolveAdjoint(),
            },
            "wrong for layered weights",
        ),
        ({"gradient": diffrax.DirectAdjoint()}, "fixed steps march by a scan"),
        ({"saveat": diffrax.SaveAt(ts=[4.0])}, r"depths in \[0, 3\]"),
        ({"saveat": diffrax.SaveAt(solver_state=True)}, "states of the solver"),
        (
            {
                "solver": diffrax.Tsit5(),
                "stepsize_controller": TIGHT,
                "saveat": diffrax.SaveAt(steps=True),
            },
            "number of adaptive steps is not known",
        ),
    ],
)
def test_input_that_does_not_fit(options, message, unchecked):
    options = {"u0": U0, "solver": ide.LieTrotter(), **options}
    with pytest.raises(ide.InputError, match=message):
        ide.solve(EQUATION, **options)


def test_dense_output_has_to_be_asked_for():
    with pytest.raises(ide.InputError, match=r"SaveAt\(dense=True\)"):
        ide.solve(EQUATION, U0, solver=ide.LieTrotter()).evaluate(0.5)


def test_saveat_depths_must_be_known():
    @jax.jit
    def solve(t):
        saveat = diffrax.SaveAt(ts=t[None])
        return ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=saveat, throw=False).us

    with pytest.raises(ide.InputError, match="known when the solve is compiled"):
        solve(jnp.array(0.5))


def test_an_operator_of_another_shape(unchecked):
    class Wrong(ide.AbstractOperator):
        weight: jax.Array

        def __call__(self, u, domain):
            return u[..., :2]

    equation = ide.Equation(
        ide.Tied((Wrong(jnp.ones(1)),), 1), ide.Free(), ide.TokenDomain.uniform(TOKENS)
    )
    with pytest.raises(
        ide.InputError, match=r"Wrong maps a state of shape \(6, 16\) to \(6, 2\)"
    ):
        ide.solve(equation, U0, solver=diffrax.Euler())


def test_intervals_that_are_not_there():
    with pytest.raises(ide.InputError, match=r"terms_of\(3\): there are 3 intervals; give 0"):
        EQUATION.terms_of(3)
    rate = eqx.filter_jit(lambda index: EQUATION.terms_of(index).vf(0.0, U0, None))
    with pytest.raises(RuntimeError, match="there are 3 intervals; give 0 to 2"):
        rate(jnp.array(3))


def test_a_constraint_for_another_width():
    sphere = ide.Sphere(domain=ide.FeatureDomain(8))
    equation = ide.Equation(EQUATION.control, sphere, EQUATION.domain)
    with pytest.raises(ide.InputError, match="8 points, but the state has 16 features"):
        ide.solve(equation, U0, solver=ide.LieTrotter())


def test_advection_whose_velocity_may_change_its_sign_is_none_for_a_writer():
    advection = ide.Tied((ide.DifferenceAdvection(jnp.ones(1)),), 1)
    model = ide.LanguageModel(
        5,
        4,
        WIDTH,
        control=advection,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=jax.random.key(0),
    )
    with pytest.raises(ide.InputError, match="DifferenceAdvection"):
        ide.generate(model, jnp.array([1]), 2, temperature=0.0)


@pytest.mark.parametrize("solver", [ide.ImplicitMidpoint(), diffrax.Kvaerno3()])
def test_implicit_equations_inside_of_pmap(solver):
    solve = jax.pmap(lambda u: ide.solve(EQUATION, u, solver=solver).u1)
    with pytest.raises(ide.InputError, match=r"implicit equation inside jax\.pmap"):
        solve(U0[None])
