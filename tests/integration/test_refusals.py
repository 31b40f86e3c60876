"""Arguments that `solve` refuses where what to write instead is not obvious."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import make_equation, random_state

import ide_transformer as ide


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-9)
ADAPTIVE = dict(solver=diffrax.Tsit5(), stepsize_controller=TIGHT)
EQUATION, U0 = make_equation(), random_state()
ON_SPHERE, POSITIVE = (make_equation(constraint=x) for x in (ide.Sphere(), ide.Nonnegative()))
PAIR, UNDONE = ide.AlgebraicallyReversible(ide.RK4()), dict(gradient=ide.Reversible())
DENSE, STEPS = diffrax.SaveAt(dense=True), diffrax.SaveAt(steps=True)
EXIT = dict(exit=ide.EstimatedExit(0.1))


REFUSED = {
    # The state.
    r"u0 has shape \(4, 16\).*6 tokens": dict(u0=U0[:4]),
    # Steps.
    r"a name is for YAML, in Python write Strang\(": dict(solver="strang(heun)"),
    r"has no error estimate.*LieStrang\(\).*HalfSolver": dict(stepsize_controller=TIGHT),
    "KenCarp3 leaves the tolerances of its root finder open": dict(solver=diffrax.KenCarp3()),
    "AdamsBashforth: it starts again where the field jumps": dict(solver=ide.AdamsBashforth(2)),
    "number of adaptive steps is not known": dict(ADAPTIVE, saveat=STEPS),
    # Gradient modes.
    "wrong for layered weights": dict(gradient=diffrax.BacksolveAdjoint()),
    r"AlgebraicallyReversible\(LieTrotter\(…\)\)": UNDONE,
    "a two-step scheme": dict(UNDONE, solver=ide.Leapfrog(), steps_per_interval=2),
    r"SaveAt\(ts=equation.knots\)": dict(UNDONE, solver=PAIR, saveat=DENSE),
    "cannot be undone": dict(UNDONE, equation=POSITIVE, solver=ide.Projected(PAIR)),
    "for adaptive steps use gradient=Recompute": dict(UNDONE, **ADAPTIVE),
    # Exits.
    "ImplicitEuler evaluates the field as often": dict(EXIT, solver=ide.ImplicitEuler()),
    "leaves the constraint Sphere; give order=0": dict(EXIT, equation=ON_SPHERE),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_go_together_is_refused(message, unchecked):
    options = dict(equation=EQUATION, u0=U0, solver=ide.LieTrotter()) | REFUSED[message]
    equation, u0 = options.pop("equation"), options.pop("u0")
    saved = {name: options.pop(name) for name in ("saveat",) if name in options}
    with pytest.raises(ide.InputError, match=message):
        ide.Discretization(**options).solve(equation, u0, **saved)


def test_depths_that_are_known_too_late():
    def states(t):
        saveat = diffrax.SaveAt(ts=t[None])
        return ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=saveat).us

    with pytest.raises(ide.InputError, match="known when the solve is compiled"):
        jax.jit(states)(jnp.array(0.5))
    rate = eqx.filter_jit(lambda index: EQUATION.terms_of(index).vf(0.0, U0, None))
    with pytest.raises(RuntimeError, match="there are 3 intervals; give 0 to 2"):
        rate(jnp.array(3))
