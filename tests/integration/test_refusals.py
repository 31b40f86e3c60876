"""Arguments that `solve` refuses where what to write instead is not obvious."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import TOKENS, make_equation, random_state

import ide_transformer as ide


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-9)
ADAPTIVE = dict(solver=diffrax.Tsit5(), stepsize_controller=TIGHT)
EQUATION = make_equation()
U0 = random_state()
PAIR, UNDONE = ide.AlgebraicallyReversible, dict(gradient=ide.Reversible())
EXIT = dict(exit=ide.EstimatedExit(0.1))


class Wrong(ide.AbstractOperator):
    weight: jax.Array

    def __call__(self, u, domain):
        return u[..., :2]


def on(constraint):
    return make_equation(intervals=2, constraint=constraint)


REFUSED = {
    # The state.
    r"u0 has shape \(4, 16\).*6 tokens": dict(u0=U0[:4]),
    r"u0 has shape \(0, 6, 16\).*not empty": dict(u0=U0[None][:0]),
    "u0 has dtype bfloat16; the state needs float32": dict(u0=U0.astype(jnp.bfloat16)),
    r"Wrong maps a state of shape \(6, 16\) to \(6, 2\)": dict(
        equation=ide.Equation(
            ide.Tied((Wrong(jnp.ones(1)),), 1), ide.Free(), ide.TokenDomain.uniform(TOKENS)
        ),
        solver=diffrax.Euler(),
    ),
    # Steps.
    r"instance of AbstractSolver; a name is for YAML, in Python write Strang\(": dict(
        solver="strang(heun)"
    ),
    r"LieTrotter has no error estimate.*LieStrang\(\).*HalfSolver": dict(
        stepsize_controller=TIGHT
    ),
    "KenCarp3 leaves the tolerances of its root finder open": dict(solver=diffrax.KenCarp3()),
    "drop steps_per_interval": dict(ADAPTIVE, steps_per_interval=2),
    "AdamsBashforth: it starts again where the field jumps": dict(solver=ide.AdamsBashforth(2)),
    # Output.
    r"depths in \[0, 3\]": dict(saveat=diffrax.SaveAt(ts=[4.0])),
    "states of the solver": dict(saveat=diffrax.SaveAt(solver_state=True)),
    "number of adaptive steps is not known": dict(ADAPTIVE, saveat=diffrax.SaveAt(steps=True)),
    # Gradient modes.
    "wrong for layered weights": dict(gradient=diffrax.BacksolveAdjoint()),
    "fixed steps march by a scan": dict(gradient=diffrax.DirectAdjoint()),
    r"AlgebraicallyReversible\(LieTrotter\(…\)\)": UNDONE,
    "Leapfrog: a two-step scheme starts again": dict(
        UNDONE, solver=ide.Leapfrog(), steps_per_interval=2
    ),
    r"SaveAt\(ts=equation.knots\)": dict(
        UNDONE, solver=PAIR(), saveat=diffrax.SaveAt(dense=True)
    ),
    "Nonnegative cannot be undone": dict(
        UNDONE, equation=on(ide.Nonnegative()), solver=ide.Projected(PAIR(ide.RK4()))
    ),
    "for adaptive steps use gradient=Recompute": dict(UNDONE, **ADAPTIVE),
    # Exits.
    "ImplicitEuler evaluates the field as often": dict(EXIT, solver=ide.ImplicitEuler()),
    "both given; tokens stop between equal steps": dict(EXIT, **ADAPTIVE),
    "leaves the constraint Sphere; give order=0": dict(EXIT, equation=on(ide.Sphere())),
    "no dense output": dict(EXIT, saveat=diffrax.SaveAt(dense=True)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_go_together_is_refused(message, unchecked):
    options = {"equation": EQUATION, "u0": U0, "solver": ide.LieTrotter(), **REFUSED[message]}
    equation, u0, saved = options.pop("equation"), options.pop("u0"), {}
    if "saveat" in options:
        saved["saveat"] = options.pop("saveat")
    with pytest.raises(ide.InputError, match=message):
        ide.Discretization(**options).solve(equation, u0, **saved)


def test_depths_that_are_known_too_late_or_not_kept():
    def states(t):
        saveat = diffrax.SaveAt(ts=t[None])
        return ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=saveat).us

    with pytest.raises(ide.InputError, match="known when the solve is compiled"):
        jax.jit(states)(jnp.array(0.5))
    with pytest.raises(ide.InputError, match=r"SaveAt\(dense=True\)"):
        ide.solve(EQUATION, U0, solver=ide.LieTrotter()).evaluate(0.5)


def test_intervals_that_are_not_there():
    with pytest.raises(ide.InputError, match=r"terms_of\(3\): there are 3 intervals; give 0"):
        EQUATION.terms_of(3)
    rate = eqx.filter_jit(lambda index: EQUATION.terms_of(index).vf(0.0, U0, None))
    with pytest.raises(RuntimeError, match="there are 3 intervals; give 0 to 2"):
        rate(jnp.array(3))


@pytest.mark.parametrize("solver", [ide.ImplicitMidpoint(), diffrax.Kvaerno3()])
def test_implicit_equations_inside_of_pmap(solver):
    solve = jax.pmap(lambda u: ide.solve(EQUATION, u, solver=solver).u1)
    with pytest.raises(ide.InputError, match=r"implicit equation inside jax\.pmap"):
        solve(U0[None])
