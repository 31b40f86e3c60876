import functools as ft
from collections.abc import Callable
from typing import NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ... import solvers
from ...errors import InputError
from .limits import block_limit, equation_limit, momentum_limit
from .problem import FEATURES, Case


class Entry(NamedTuple):
    """A scheme and the problem that it is measured on.

    - `solver`: the scheme on a free state.
    - `block`: name of the operators; see `Case`.
    - `on_sphere`: the scheme on a constraint; `None` where it does not apply.
    - `on_free`: whether it applies without a constraint.
    - `limit`: from `solver` and the case to the state at T to which the scheme converges.
    """

    solver: diffrax.AbstractSolver
    block: str = "transformer"
    on_sphere: diffrax.AbstractSolver | None = None
    on_free: bool = True
    limit: Callable[..., Array] = equation_limit

    def scheme(self, constraint: str) -> diffrax.AbstractSolver | None:
        """The scheme on a constraint; `None` where it does not apply."""
        if constraint != "free":
            return self.on_sphere
        return self.solver if self.on_free else None

    def exact(self, case: Case) -> Array:
        """The state at T to which the scheme converges."""
        return self.limit(self.solver, case)


def _explicit(solver: diffrax.AbstractSolver, block: str = "transformer") -> Entry:
    return Entry(solver, block, on_sphere=solvers.projected(solver))


def _momentum(solver: diffrax.AbstractSolver) -> Entry:
    return Entry(solver, on_sphere=solvers.projected(solver), limit=momentum_limit)


def _on_blocks(solver: diffrax.AbstractSolver) -> Entry:
    return Entry(solver, limit=block_limit)


def _on_sphere_only(solver: diffrax.AbstractSolver) -> Entry:
    return Entry(solver, "paper", on_sphere=solver, on_free=False)


def _gated() -> solvers.GatedRK2:
    """A gate other than ½, which would be of second order."""
    gate = solvers.GatedRK2(FEATURES)
    weight = 0.3 * jax.random.normal(jax.random.key(11), gate.weight.shape)
    return eqx.tree_at(lambda g: (g.weight, g.bias), gate, (weight, jnp.asarray(0.5)))


@ft.cache
def schemes() -> dict[str, Entry]:
    """Every scheme, by the name under which it is reported."""
    return {
        "euler": _explicit(diffrax.Euler()),
        "heun": _explicit(diffrax.Heun()),
        "midpoint": _explicit(diffrax.Midpoint()),
        "ralston": _explicit(diffrax.Ralston()),
        "bosh3": _explicit(diffrax.Bosh3()),
        "rk4": _explicit(solvers.RK4()),
        "dopri5": _explicit(diffrax.Dopri5()),
        "tsit5": _explicit(diffrax.Tsit5()),
        "dopri8": _explicit(diffrax.Dopri8()),
        "reversible_heun": Entry(diffrax.ReversibleHeun()),
        "half_solver(lie_trotter)": _explicit(diffrax.HalfSolver(solvers.LieTrotter())),
        "lie_trotter(euler)": _explicit(solvers.LieTrotter(diffrax.Euler())),
        "lie_trotter(heun)": _explicit(solvers.LieTrotter(diffrax.Heun())),
        "lie_trotter(euler, exact damping)": Entry(solvers.LieTrotter(), "damped"),
        "strang(euler)": _explicit(solvers.Strang(diffrax.Euler())),
        "strang(heun)": _explicit(solvers.Strang(diffrax.Heun())),
        "strang(rk4)": _explicit(solvers.Strang(solvers.RK4())),
        "strang(heun, exact damping)": Entry(solvers.Strang(), "damped"),
        "lie_strang(heun)": _explicit(solvers.LieStrang(diffrax.Heun())),
        "parallel_splitting(euler)": _explicit(solvers.ParallelSplitting(diffrax.Euler())),
        "parallel_splitting(heun)": _explicit(solvers.ParallelSplitting(diffrax.Heun())),
        "yoshida4(rk4)": _explicit(solvers.Yoshida4(solvers.RK4())),
        "suzuki4(rk4)": _explicit(solvers.Suzuki4(solvers.RK4())),
        "paper_splitting": _on_sphere_only(solvers.PaperSplitting()),
        "consistent_paper_splitting": _on_sphere_only(solvers.ConsistentPaperSplitting()),
        "residual(euler)": _on_blocks(solvers.Residual(diffrax.Euler())),
        "residual(rk4)": _on_blocks(solvers.Residual(solvers.RK4())),
        "residual(gated_rk2)": _on_blocks(solvers.Residual(_gated())),
        "velocity(euler)": _on_blocks(solvers.Velocity(diffrax.Euler())),
        "adams_bashforth(2)": _explicit(solvers.AdamsBashforth(2)),
        "adams_bashforth(3)": _explicit(solvers.AdamsBashforth(3)),
        "leapfrog": _explicit(solvers.Leapfrog()),
        "algebraically_reversible(strang(heun))": _explicit(
            solvers.AlgebraicallyReversible(solvers.Strang(diffrax.Heun()))
        ),
        "algebraically_reversible(rk4)": _explicit(
            solvers.AlgebraicallyReversible(solvers.RK4())
        ),
        "nesterov": _momentum(solvers.Nesterov(0.5, 0.5, 1.0)),
        "heavy_ball": _momentum(solvers.HeavyBall(0.5, 1.0)),
        "presymplectic_euler": _momentum(solvers.PresymplecticEuler(1.0, 0.1)),
        "exponential_euler": _explicit(solvers.ExponentialEuler(), "damped"),
        "etdab2": _explicit(solvers.ETDAB2(), "damped"),
        "implicit_euler": Entry(solvers.ImplicitEuler()),
        "implicit_midpoint": Entry(solvers.ImplicitMidpoint()),
        "kvaerno3": Entry(diffrax.Kvaerno3()),
        "kvaerno4": Entry(diffrax.Kvaerno4()),
        "kvaerno5": Entry(diffrax.Kvaerno5()),
    }


def applies(scheme: str, constraint: str) -> bool:
    """Whether a scheme can be measured on a constraint."""
    return find_scheme(scheme).scheme(constraint) is not None


def find_scheme(scheme: str) -> Entry:
    """The entry of that name.

    **Raises:** `InputError` for an unknown one.
    """
    if scheme not in schemes():
        raise InputError(f"--scheme {scheme}: unknown. Known: {', '.join(schemes())}.")
    return schemes()[scheme]
