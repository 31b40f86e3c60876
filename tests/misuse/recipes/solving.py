"""Recipes of equations, of their solution and of schemes."""

import diffrax
import jax
import jax.numpy as jnp

import ide_transformer as ide

from .small import CONTROL, DAMPED, DOMAIN, EQUATION, KEY, TOKENS, U0, WIDTH, Recipe, solved


def scheme(name: str, arguments: dict | None = None, equation=EQUATION) -> Recipe:
    return Recipe(getattr(ide, name), arguments or {}, lambda x: solved(x, equation))


def with_gradient(gradient, solver=None):
    solver = ide.LieTrotter() if solver is None else solver

    def loss(u0):
        return ide.solve(EQUATION, u0, solver=solver, gradient=gradient).u1.sum()

    return jax.grad(loss)(U0)


FIELD = EQUATION.terms_of(0)
PAIR = U0, U0


EQUATIONS = {
    "TokenDomain": Recipe(
        ide.TokenDomain,
        dict(points=DOMAIN.points, weights=jnp.ones(TOKENS), grid=(TOKENS,), prefix=0),
        lambda domain: ide.Attention(WIDTH, 2, key=KEY)(U0, domain),
    ),
    "TokenDomain.uniform": Recipe(
        ide.TokenDomain.uniform, {"shape": TOKENS}, lambda domain: domain.points
    ),
    "TokenDomain.periodic": Recipe(
        ide.TokenDomain.periodic, dict(shape=TOKENS, length=1.0), lambda domain: domain.points
    ),
    "TokenDomain.midpoint": Recipe(
        ide.TokenDomain.midpoint,
        dict(tokens=TOKENS, interval=(0.0, 1.0)),
        lambda domain: domain.weights,
    ),
    "TokenDomain.trapezoid": Recipe(
        ide.TokenDomain.trapezoid,
        dict(points=jnp.linspace(0, 1, TOKENS)),
        lambda domain: domain.weights,
    ),
    "TokenDomain.gauss_legendre": Recipe(
        ide.TokenDomain.gauss_legendre,
        dict(tokens=TOKENS, interval=(0.0, 1.0)),
        lambda domain: domain.weights,
    ),
    "TokenDomain.simpson": Recipe(
        ide.TokenDomain.simpson,
        dict(points=jnp.linspace(0, 1, TOKENS)),
        lambda domain: domain.weights,
    ),
    "TokenDomain.clenshaw_curtis": Recipe(
        ide.TokenDomain.clenshaw_curtis,
        dict(tokens=TOKENS, interval=(0.0, 1.0)),
        lambda domain: domain.weights,
    ),
    "TokenDomain.monte_carlo": Recipe(
        ide.TokenDomain.monte_carlo,
        dict(tokens=TOKENS, key=KEY, bounds=((0.0, 1.0),)),
        lambda domain: domain.points,
    ),
    "TokenDomain.from_points": Recipe(
        ide.TokenDomain.from_points,
        dict(points=jnp.linspace(0, 1, TOKENS)[:, None], bounds=((0.0, 1.0),)),
        lambda domain: domain.weights,
    ),
    "interpolation": Recipe(
        ide.interpolation,
        dict(source=DOMAIN, target=DOMAIN, degree=1),
        lambda transfer: transfer(U0),
    ),
    "coarsened": Recipe(
        ide.coarsened, dict(domain=DOMAIN, factor=TOKENS), lambda domain: domain.points
    ),
    "restriction": Recipe(
        ide.restriction, dict(source=DOMAIN, target=DOMAIN), lambda transfer: transfer(U0)
    ),
    "Equation": Recipe(
        ide.Equation,
        dict(control=CONTROL, constraint=ide.Free(), domain=DOMAIN),
        lambda equation: solved(ide.LieTrotter(), equation),
    ),
    "solve": Recipe(
        ide.solve,
        dict(
            equation=EQUATION,
            u0=U0,
            solver=ide.LieTrotter(),
            steps_per_interval=2,
            stepsize_controller=None,
            gradient=ide.Direct(),
            saveat=diffrax.SaveAt(t1=True),
            args=None,
            max_steps=16,
            throw=True,
        ),
        lambda solution: solution.u1,
    ),
    "Discretization": Recipe(
        ide.Discretization,
        dict(
            solver=ide.LieTrotter(),
            steps_per_interval=2,
            stepsize_controller=None,
            gradient=ide.Direct(),
            max_steps=16,
            steps_for="batch",
            compute_dtype=None,
            exit=None,
        ),
        lambda discretization: discretization.solve(EQUATION, U0).u1,
    ),
    "Solution.evaluate": Recipe(
        ide.solve(EQUATION, U0, solver=ide.RK4(), saveat=diffrax.SaveAt(dense=True)).evaluate,
        {"t": 0.5},
        lambda state: state,
    ),
    "Direct": Recipe(ide.Direct, {}, with_gradient),
    "Recompute": Recipe(ide.Recompute, {"policy": None}, with_gradient),
    "Recursive": Recipe(ide.Recursive, {"levels": 1, "policy": None}, with_gradient),
    "Reversible": Recipe(
        ide.Reversible,
        {"tolerance": 1e-3},
        lambda gradient: with_gradient(gradient, ide.AlgebraicallyReversible()),
    ),
    "rebuilding_error": Recipe(
        ide.rebuilding_error,
        dict(
            equation=EQUATION,
            u0=U0,
            solver=ide.AlgebraicallyReversible(),
            steps_per_interval=1,
            args=None,
        ),
        lambda error: error,
    ),
}

LOGITS = jnp.arange(6.0).reshape(2, 3)


def with_exit(exit):
    discretization = ide.Discretization(ide.LieTrotter(), exit=exit)
    return discretization.solve(EQUATION, U0, read_out=lambda u: u).u1


EXITS = {
    "EstimatedExit": Recipe(
        ide.EstimatedExit,
        dict(tolerance=0.1, stops="token", order=1, hits=1, difference=ide.divergence),
        with_exit,
    ),
    "divergence": Recipe(ide.divergence, dict(expected=LOGITS, given=LOGITS), lambda x: x),
    "relative_difference": Recipe(
        ide.relative_difference, dict(expected=LOGITS + 1, given=LOGITS), lambda x: x
    ),
}

SCHEMES = {
    "AdamsBashforth": scheme("AdamsBashforth", {"steps": 2}),
    "AlgebraicallyReversible": scheme(
        "AlgebraicallyReversible", {"solver": diffrax.Heun(), "coupling": 0.9}
    ),
    "Composition": scheme("Composition", {"sub_solver": ide.RK4(), "coefficients": (0.5, 0.5)}),
    "AttentionResidual": scheme(
        "AttentionResidual", dict(num_steps=1, operators=2, features=WIDTH)
    ),
    "Bidirectional": scheme("Bidirectional", dict(amplitude=0.5, key=KEY)),
    **{
        name: scheme(name, dict(num_steps=1, operators=2, features=WIDTH, streams=2))
        for name in ("HyperConnections", "DoublyStochasticConnections")
    },
    "LearnedMultistep": scheme("LearnedMultistep", dict(num_steps=1, solver=ide.LieTrotter())),
    "InitialVelocity": Recipe(
        ide.InitialVelocity,
        {"velocity": U0},
        lambda args: ide.solve(EQUATION, U0, solver=ide.Nesterov(), args=args).u1,
    ),
    "GatedRK2": scheme("GatedRK2", {"features": WIDTH}),
    "HeavyBall": scheme("HeavyBall", dict(momentum=0.5, gain=1.0, normalization=ide.Free())),
    "Nesterov": scheme(
        "Nesterov", dict(momentum=0.5, lookahead=0.5, gain=1.0, normalization=ide.Free())
    ),
    "PresymplecticEuler": scheme(
        "PresymplecticEuler", dict(logarithmic=1.0, linear=0.1, normalization=ide.Free())
    ),
    **{
        name: scheme(name, {"tolerance": 1e-3})
        for name in ("ImplicitEuler", "ImplicitMidpoint")
    },
    "MatrixFree": scheme("MatrixFree", {"solver": diffrax.Kvaerno3(), "tolerance": 1e-3}),
    "SteadyState": Recipe(
        ide.SteadyState,
        {"solver": diffrax.Euler(), "tolerance": 1e-3},
        lambda x: solved(x, ide.Equation(ide.Tied((ide.Damping(1.0),), 1), ide.Free(), DOMAIN)),
    ),
    **{name: scheme(name) for name in ("RK4", "Leapfrog", "ETDAB2", "ExponentialEuler")},
    **{name: scheme(name, equation=DAMPED) for name in ("ETDAB2", "ExponentialEuler")},
    "ExactFlow": scheme(
        "ExactFlow", equation=ide.Equation(ide.Tied((ide.Damping(1.0),), 1), ide.Free(), DOMAIN)
    ),
    **{name: scheme(name) for name in ("PaperSplitting", "ConsistentPaperSplitting")},
    **{
        name: scheme(name, {"sub_solver": diffrax.Euler()})
        for name in (
            "LieTrotter",
            "LieStrang",
            "ParallelSplitting",
            "Strang",
            "Suzuki4",
            "Yoshida4",
        )
    },
    **{
        name: scheme(name, {"solver": diffrax.Euler(), "block": ide.LieTrotter()})
        for name in ("Residual", "Velocity")
    },
    **{name: scheme(name, {"solver": ide.RK4()}) for name in ("Projected", "Tangential")},
    "projected": scheme("projected", {"solver": ide.RK4()}),
    "Shear": Recipe(
        ide.Shear,
        dict(increment=jnp.sin, target=0, scale=1.0),
        lambda coupling: coupling.forward(PAIR),
    ),
    "StepField": Recipe(
        ide.StepField, dict(terms=FIELD, t0=0.0, t1=1.0, args=None), lambda field: field.h
    ),
    "single_step": Recipe(
        ide.single_step,
        dict(solver=ide.RK4(), terms=FIELD, t0=0.0, t1=1.0, u=U0, args=None),
        lambda u: u,
    ),
}
