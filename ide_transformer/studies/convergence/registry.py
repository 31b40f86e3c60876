import functools as ft
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ... import solvers
from ...errors import InputError
from ...training import SchemeConfig, did_you_mean, validated
from .problem import FEATURES, block_limit, equation_limit, momentum_limit


class Entry(NamedTuple):
    """A scheme and the problem that it is measured on.

    - `free`, `sphere`: the scheme on a free state and on a constraint; `None` where it does not
      apply.
    - `block`: name of the operators; see `Case`.
    - `limit`: from `free` and the case to the state at T to which the scheme converges.
    """

    free: diffrax.AbstractSolver | None
    sphere: diffrax.AbstractSolver | None = None
    block: str = "transformer"
    limit: Callable[..., Array] = equation_limit

    def scheme(self, constraint: str) -> diffrax.AbstractSolver | None:
        """The scheme on a constraint; `None` where it does not apply."""
        return self.free if constraint == "free" else self.sphere


def _explicit(solver: diffrax.AbstractSolver, **options: Any) -> Entry:
    return Entry(solver, solvers.projected(solver), **options)


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
        "half_solver(lie_trotter(euler))": _explicit(diffrax.HalfSolver(solvers.LieTrotter())),
        "lie_trotter(euler)": _explicit(solvers.LieTrotter(diffrax.Euler())),
        "lie_trotter(heun)": _explicit(solvers.LieTrotter(diffrax.Heun())),
        "lie_trotter(euler), exact damping": Entry(solvers.LieTrotter(), block="damped"),
        "strang(euler)": _explicit(solvers.Strang(diffrax.Euler())),
        "strang(heun)": _explicit(solvers.Strang(diffrax.Heun())),
        "strang(rk4)": _explicit(solvers.Strang(solvers.RK4())),
        "strang(heun), exact damping": Entry(solvers.Strang(), block="damped"),
        "lie_strang(heun)": _explicit(solvers.LieStrang(diffrax.Heun())),
        "parallel_splitting(euler)": _explicit(solvers.ParallelSplitting(diffrax.Euler())),
        "parallel_splitting(heun)": _explicit(solvers.ParallelSplitting(diffrax.Heun())),
        "yoshida4(rk4)": _explicit(solvers.Yoshida4(solvers.RK4())),
        "suzuki4(rk4)": _explicit(solvers.Suzuki4(solvers.RK4())),
        "paper_splitting": Entry(None, solvers.PaperSplitting(), block="paper"),
        "consistent_paper_splitting": Entry(
            None, solvers.ConsistentPaperSplitting(), block="paper"
        ),
        "residual(euler)": Entry(solvers.Residual(diffrax.Euler()), limit=block_limit),
        "residual(rk4)": Entry(solvers.Residual(solvers.RK4()), limit=block_limit),
        "residual(gated_rk2)": Entry(solvers.Residual(_gated()), limit=block_limit),
        "velocity(euler)": Entry(solvers.Velocity(diffrax.Euler()), limit=block_limit),
        "adams_bashforth(2)": _explicit(solvers.AdamsBashforth(2)),
        "adams_bashforth(3)": _explicit(solvers.AdamsBashforth(3)),
        "leapfrog": _explicit(solvers.Leapfrog()),
        "algebraically_reversible(strang(heun))": _explicit(
            solvers.AlgebraicallyReversible(solvers.Strang(diffrax.Heun()))
        ),
        "algebraically_reversible(rk4)": _explicit(
            solvers.AlgebraicallyReversible(solvers.RK4())
        ),
        "nesterov": _explicit(
            solvers.Nesterov(momentum=0.5, lookahead=0.5), limit=momentum_limit
        ),
        "heavy_ball": _explicit(solvers.HeavyBall(momentum=0.5), limit=momentum_limit),
        "presymplectic_euler": _explicit(
            solvers.PresymplecticEuler(logarithmic=1.0, linear=0.1), limit=momentum_limit
        ),
        "exponential_euler": _explicit(solvers.ExponentialEuler(), block="damped"),
        "etdab2": _explicit(solvers.ETDAB2(), block="damped"),
        "implicit_euler": Entry(solvers.ImplicitEuler()),
        "implicit_midpoint": Entry(solvers.ImplicitMidpoint()),
        "kvaerno3": Entry(diffrax.Kvaerno3()),
        "kvaerno4": Entry(diffrax.Kvaerno4()),
        "kvaerno5": Entry(diffrax.Kvaerno5()),
    }


def applies(scheme: str, constraint: str) -> bool:
    """Whether a scheme can be measured on a constraint."""
    return find_scheme(scheme)[1].scheme(constraint) is not None


def find_scheme(scheme: str) -> tuple[str, Entry]:
    """The name and the entry of a scheme; `strang` is `strang(heun)`, as in configurations."""
    known = schemes()
    try:
        name = scheme if scheme in known else str(validated(SchemeConfig, scheme, "--scheme"))
    except InputError:
        name = scheme
    if name not in known:
        hint = did_you_mean(name, known)
        raise InputError(
            f"--scheme {name}: it is not measured.{hint} Known: {'; '.join(known)}."
        )
    return name, known[name]
