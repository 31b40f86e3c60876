"""Parts of an equation, schemes and arguments of a solve that do not go together, where what to
write instead is not obvious; `test_arguments` has single arguments."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.integration.solve import solve_on
from tests.helpers import built, largest, make_equation, random_state
from tests.solvers.linear_problem import initial_state, layered_equation, tied_equation


KEY, WIDTH, TOKENS = jax.random.key(0), 16, 6
Domain, LINE = ide.TokenDomain, jnp.linspace(0, 1, TOKENS)
UNIFORM, PLANE, CIRCLE = Domain.uniform(TOKENS), Domain.uniform((2, 3)), Domain.periodic(TOKENS)
SIMPSON, FEW = Domain.simpson(LINE), Domain(jnp.array([[0.0], [1.0]]))
TWICE_DAMPED = ide.PiecewiseConstant((ide.Damping(np.ones(2)), ide.Damping(np.ones(2))))


def rate(operator, domain=UNIFORM):
    return jax.eval_shape(lambda: operator(jnp.ones((domain.num_tokens, WIDTH)), domain))


def build_operator(kind, *heads, **options):
    return built(lambda: kind(WIDTH, *heads, key=KEY, **options))


def equation(theta, constraint=ide.Free()):
    return ide.Equation(theta, constraint, UNIFORM)


WINDOWS = build_operator(ide.ConvolutionalAttention, 4)
PARTS = {
    # Controls and equations.
    "on 3 intervals of length 1": lambda: equation(TWICE_DAMPED, ide.Tied(ide.Free(), 3)),
    r"got the constraints \(Damping, Damping\)": lambda: equation(TWICE_DAMPED, TWICE_DAMPED),
    "sub-solver": lambda: ide.Strang(ide.Projected(ide.Strang())),
    # Operators, their states and their domains.
    "no states of a second domain": lambda: rate(build_operator(ide.CrossAttention, 4)),
    "window=3 needs causal=True": lambda: build_operator(ide.Attention, 4, window=3),
    "Diffusion needs tokens at equal distances": lambda: rate(
        ide.equation.Diffusion(1.0), SIMPSON
    ),
    "at least 7 points": lambda: rate(build_operator(ide.FourierIntegral, modes=4), CIRCLE),
    "width=2147483647": lambda: build_operator(ide.ConvolutionalAttention, 4, width=2**31 - 1),
    "without weights, padding": lambda: rate(WINDOWS, PLANE.padded(jnp.ones((1, 6), bool))),
}


@pytest.mark.parametrize("message", PARTS)
def test_what_does_not_fit_is_refused(message, unchecked):
    with pytest.raises(ide.InputError, match=message):
        PARTS[message]()


LAYERED = layered_equation()
SCHEMES = {
    "Matrix has no flow in closed": ide.LieTrotter(ide.ExactFlow()),
    r"got \(Matrix, Matrix\); add a Damping": ide.ExponentialEuler(),
    "LearnedMultistep: .* num_steps=2 equal steps": ide.contrib.LearnedMultistep(2),
    "makes adaptive steps.* HalfSolver": diffrax.HalfSolver(
        ide.contrib.HyperConnections(3, 2, 4)
    ),
    r"Strang\(sub_solver=Leapfrog\(…\)\): .*earlier": ide.Strang(ide.Leapfrog()),
    "uses earlier steps, which": ide.AlgebraicallyReversible(ide.contrib.Nesterov()),
    "is implicit; use": ide.AlgebraicallyReversible(ide.ImplicitEuler()),
}


def test_a_stage_that_is_used_again_and_a_count_are_no_memory():
    for solver in (
        ide.Strang(ide.Projected(diffrax.HalfSolver(diffrax.Bosh3()))),
        ide.contrib.LearnedMultistep(3, ide.Strang(ide.ImplicitEuler())),
        ide.AlgebraicallyReversible(ide.Projected(diffrax.Tsit5())),
    ):
        solver.init(LAYERED.terms, 0.0, 1.0, initial_state(), None)


def test_a_tuple_is_no_state_of_a_splitting():
    first, second = (diffrax.ODETerm(lambda t, y, args: (y[1], -y[0])) for _ in range(2))
    terms, y0 = diffrax.MultiTerm(first, second), (jnp.ones(2), jnp.zeros(2))
    with pytest.raises(ide.InputError, match="tuple"):
        diffrax.diffeqsolve(terms, ide.Strang(ide.RK4()), 0, 1, 0.5, y0)


class ArgsDamping(ide.Damping):
    """Damping at a rate that `solve` is given; before it knows that, none."""

    def at(self, t, args):
        return dataclasses.replace(self, rate=self.rate * args)


def test_exact_flows_know_the_arguments_of_the_solve():
    equation = tied_equation(ArgsDamping(0.1), intervals=4)
    for solver in (ide.Strang(), ide.ETDAB2()):
        u1 = ide.solve(equation, initial_state(), solver=solver, args=jnp.asarray(5.0)).u1
        assert largest(u1, initial_state() * np.exp(-0.1 * 5 * 4)) < 1e-12


TIGHT = diffrax.PIDController(rtol=1e-9, atol=1e-9)
ADAPTIVE = dict(solver=diffrax.Tsit5(), stepsize_controller=TIGHT)
EQUATION, U0 = make_equation(), random_state()
ON_SPHERE, POSITIVE = (make_equation(constraint=x) for x in (ide.Sphere(), ide.Nonnegative()))
PAIR, UNDONE = ide.AlgebraicallyReversible(ide.RK4()), dict(gradient=ide.Reversible())
DENSE = diffrax.SaveAt(dense=True)
EXIT = dict(exit=ide.EstimatedExit(0.1))
DAMPED = dict(equation=tied_equation(ide.Damping(0.7), ide.Damping(0.2)), u0=initial_state())


SOLVES = {
    # The state.
    r"u0 float64\[4, 16\], expected float32 or float64 \[\.\.\., 6, features\]": dict(
        u0=U0[:4]
    ),
    r"\[6, 0\], expected .* at least one number": dict(u0=U0[:, :0]),
    r"u0=i64\[6,16\].* floats \[\.\.\., tokens, features\]": dict(u0=U0.astype(int)),
    # Steps.
    r"has no error estimate.*LieStrang\(\).*HalfSolver": dict(stepsize_controller=TIGHT),
    # The scheme that was given, not the one around it that projects.
    r"RK4 has no error .*HalfSolver\(RK4\(": dict(
        stepsize_controller=TIGHT, equation=ON_SPHERE, solver=ide.RK4()
    ),
    "AdamsBashforth restarts where the field jumps": dict(solver=ide.AdamsBashforth(2)),
    # Gradient modes.
    r"AlgebraicallyReversible\(LieTrotter\(…\)\)": UNDONE,
    "cannot undo the start of Leapfrog": dict(
        UNDONE, solver=ide.Leapfrog(), steps_per_interval=2
    ),
    r"SaveAt\(ts=equation.knots\)": dict(UNDONE, solver=PAIR, saveat=DENSE),
    "cannot be undone": dict(UNDONE, equation=POSITIVE, solver=ide.Projected(PAIR)),
    "undoes equal steps; use gradient=Recompute": dict(UNDONE, **ADAPTIVE),
    "dissipative Damping grows without bound": dict(DAMPED, solver=ide.Yoshida4()),
    # Exits.
    "evaluations of ImplicitEuler depend on": dict(EXIT, solver=ide.ImplicitEuler()),
    "leaves the Sphere; set order=0": dict(EXIT, equation=ON_SPHERE),
}


SOLVES |= {
    message: dict(equation=LAYERED, u0=initial_state(), solver=solver)
    for message, solver in SCHEMES.items()
}


@pytest.mark.parametrize("message", SOLVES)
def test_what_does_not_go_together_is_refused(message, unchecked):
    options = dict(equation=EQUATION, u0=U0, solver=ide.LieTrotter()) | SOLVES[message]
    equation, u0 = options.pop("equation"), options.pop("u0")
    with pytest.raises(ide.InputError, match=message):
        if "exit" in options:
            more = dict(gradient=ide.Recompute(), exit=options["exit"])
            solve_on(ide.Mesh().with_defaults, options["solver"], equation, u0, **more)
        else:
            ide.solve(equation, u0, **options)


@pytest.mark.parametrize(
    "options",
    [
        dict(solver=ide.AlgebraicallyReversible(ide.RK4()), gradient=ide.Reversible()),
        dict(solver=ide.ImplicitEuler()),
    ],
)
def test_what_has_no_forward_mode_says_what_to_write(options):
    def end(u0):
        return ide.solve(EQUATION, u0, **options).u1

    with pytest.raises(ide.InputError, match=r"no forward mode .* gradient=Direct"):
        jax.jvp(end, (U0,), (U0,))


def test_depths_that_are_known_too_late():
    def states(t):
        saveat = diffrax.SaveAt(ts=t[None])
        return ide.solve(EQUATION, U0, solver=ide.LieTrotter(), saveat=saveat).us

    with pytest.raises(ide.InputError, match="compile time"):
        jax.jit(states)(jnp.array(0.5))
    rate = eqx.filter_jit(lambda index: EQUATION.terms_of(index).vf(0.0, U0, None))
    with pytest.raises(RuntimeError, match="from 0 to 2"):
        rate(jnp.array(3))
