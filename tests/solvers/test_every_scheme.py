"""Every scheme does what `check_scheme` asks; schemes with an error do not."""

import functools as ft

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import classes_of, drawn, fast_first

import ide_transformer as ide
from ide_transformer import solvers
from ide_transformer.equation import parts
from ide_transformer.solvers.evaluations import _count
from ide_transformer.studies.convergence import block_limit, momentum_limit
from ide_transformer.testing import check_scheme


class Heun(solvers.AbstractOneStep):
    """A scheme of a user's own."""

    def order(self, terms):
        return 2

    def advance(self, field, u):
        first = field(0, u)
        second = field(1, u + first)
        return u + 0.5 * (first + second)


def filled(solver):
    """The scheme with weights that differ."""
    return jax.tree.map(
        lambda x: x + drawn(x.shape, x.size, 0.1) if eqx.is_inexact_array(x) else x, solver
    )


SIZES = 3, 2, 4
DELTA = ide.DeltaRule(drawn((2, 2), 1), drawn((2,), 2))
EXACT = ide.Damping(np.linspace(0.2, 1.1, 4)), DELTA
REST = DELTA, ide.Damping(4.0)
# Some of each class, and those that converge to another equation or need operators of a kind.
CASES = {
    "own": Heun(),
    "leapfrog": ide.Leapfrog(),
    "adams_bashforth": ide.AdamsBashforth(3),
    "reversible": ide.AlgebraicallyReversible(ide.Strang()),
    "residual": ide.Residual(filled(ide.GatedRK2(4))),
    "velocity": ide.Velocity(),
    "paper": ide.PaperSplitting(),
    "consistent_paper": ide.ConsistentPaperSplitting(),
    "attention_residual": filled(ide.AttentionResidual(*SIZES)),
    "doubly_stochastic": filled(ide.DoublyStochasticConnections(*SIZES, 2)),
    "hyper_connections": filled(ide.HyperConnections(*SIZES, 2)),
    "learned_multistep": filled(ide.LearnedMultistep(3)),
    "implicit_euler": ide.ImplicitEuler(),
    "implicit_midpoint": ide.ImplicitMidpoint(),
    "matrix_free": ide.MatrixFree(diffrax.Kvaerno3()),
    "steady_state": ide.SteadyState(diffrax.Euler()),
    "heavy_ball": ide.HeavyBall(0.5),
    "nesterov": ide.Nesterov(0.5, 0.5),
    "presymplectic": ide.PresymplecticEuler(1.0, 0.1),
    "exponential": ide.ExponentialEuler(),
    "etdab2": ide.ETDAB2(),
    "bidirectional": ide.Bidirectional(),
    "rk4": ide.RK4(),
    "tsit5": diffrax.Tsit5(),
    "composition": ide.Composition(coefficients=(0.5, 0.5)),
    "exact_flow": ide.LieTrotter(ide.ExactFlow()),
    "lie_strang": ide.LieStrang(),
    "parallel": ide.ParallelSplitting(),
    "suzuki4": ide.Suzuki4(),
    "yoshida4": ide.Yoshida4(),
    "tangential": ide.Tangential(ide.Projected(diffrax.Heun())),
    "reversible_heun": diffrax.ReversibleHeun(),
    "half_solver": diffrax.HalfSolver(ide.LieTrotter()),
    "dopri8": diffrax.Dopri8(),
}
LIMITS = {
    **dict.fromkeys(("residual", "velocity"), block_limit),
    **dict.fromkeys(("heavy_ball", "nesterov", "presymplectic"), momentum_limit),
}
OPERATORS = {"exact_flow": EXACT, "steady_state": REST}
OPTIONS = {"tangential": {"solver": "heun"}, "half_solver": {"solver": "lie_trotter"}}
QUICK = ("copies", "yaml", "order")
SLOW = (
    *("dtype", "constraint", "failure", "vmap", "derivative", "batches", "modes"),
    *("diffeqsolve", "interpolation"),
)
KINDS = (
    *("own", "leapfrog", "adams_bashforth", "reversible", "hyper_connections"),
    *("implicit_midpoint", "nesterov"),
)


def check(name, without):
    solver, limit = CASES[name], LIMITS.get(name)
    limit = None if limit is None else ft.partial(limit, solver)
    options = OPTIONS.get(name, {})
    operators = OPERATORS.get(name)
    if name == "half_solver":
        # diffrax interpolates the whole step that it compares with.
        without = (*without, "interpolation")
    check_scheme(solver, operators=operators, limit=limit, options=options, without=without)


@pytest.mark.parametrize("name", CASES)
def test_order_of_every_scheme(name):
    check(name, SLOW)


@pytest.mark.parametrize(
    "name", fast_first(1, dict.fromkeys([*KINDS, *CASES]), heavy=len(KINDS) - 1)
)
def test_every_scheme(name):
    check(name, QUICK)


def test_every_class_of_the_package_is_here():
    for name, kind in classes_of(diffrax.AbstractSolver, solvers).items():
        assert any(parts(solvers.unrolled(x), kind) for x in CASES.values()), name


class WrongEnd(Heun):
    def advance(self, field, u):
        first = field(0, u)
        return u + 0.5 * (first + field(0, u + first))


class Continuing(solvers.AbstractFieldScheme):
    """Two steps of Adams and Bashforth, which do not start again where the field jumps."""

    def order(self, terms):
        return 2

    def start(self, field, u):
        return jnp.zeros_like(u), jnp.array(True)

    def make_step(self, field, u, state, made_jump):
        increment = field(0, u)
        before, first = state
        heun = 0.5 * (increment + field(1, u + increment))
        step = jnp.where(first, heun, 1.5 * increment - 0.5 * before)
        return solvers.Step.between(u, u + step, state=(increment, jnp.array(False)))


class Leaving(Heun):
    def projected(self):
        return self


class Hiding(Heun):
    def advance(self, field, u):
        return jnp.nan_to_num(super().advance(field, u))


class Stopped(Heun):
    def advance(self, field, u):
        first = jax.lax.stop_gradient(field(0, u))
        return u + 0.5 * (first + field(1, u + first))


class Elsewhere(Heun):
    def make_step(self, field, u, state, made_jump):
        step = super().make_step(field, u, state, made_jump)
        return step._replace(dense_info={"y0": u, "y1": u})


class Widening(Heun):
    def advance(self, field, u):
        return super().advance(field, u) * jnp.ones_like(u, jnp.float64)


class Crowded(Heun):
    def advance(self, field, u):
        return super().advance(field, u) * (1 if u.ndim == 2 else 1.01)


class Beyond(Heun):
    """With a stage at the end of the step after."""

    def advance(self, field, u):
        first = field(0, u)
        return u + 0.75 * first + 0.25 * field(2, u + 2 * first)


@jax.custom_batching.custom_vmap
def same(u):
    return u


@same.def_vmap
def _(size, batched, u):
    return 1.01 * u, True


class Batched(Heun):
    def advance(self, field, u):
        known = jax.lax.stop_gradient(u)
        return super().advance(field, u) + same(known) - known


class WrongWay(ide.Leapfrog):
    def couplings(self, field, first):
        shear, swap = super().couplings(field, first)
        return solvers.Shear(shear.increment, target=1, scale=1.01), swap


class Unnamed(Heun):
    part: object

    configurable = True


class Local(Heun):
    function: object = lambda u: u


BROKEN = {
    "order": (WrongEnd(), Continuing()),
    "constraint": (Leaving(),),
    "dtype": (Widening(),),
    "yaml": (Unnamed(1j),),
    "copies": (Local(),),
    "failure": (Hiding(),),
    "derivative": (Stopped(),),
    "vmap": (Batched(),),
    "diffeqsolve": (Beyond(),),
    "batches": (Crowded(),),
    "interpolation": (Elsewhere(),),
    "modes": (WrongWay(),),
}


FAST = (*QUICK, "constraint", "dtype")


@pytest.mark.parametrize(
    ("rule", "solver"),
    [
        pytest.param(rule, solver, marks=[] if rule in FAST else pytest.mark.heavy)
        for rule, broken in BROKEN.items()
        for solver in broken
    ],
)
def test_an_error_is_found(rule, solver):
    others = {*QUICK, *SLOW} - {rule}
    with pytest.raises(AssertionError, match=rf", {rule}: it does not hold"):
        check_scheme(solver, without=tuple(others))


def test_the_field_over_a_step_meets_both_ends_exactly():
    t0, t1 = 0.1, 0.1 + 0.7 / 3
    field = solvers.StepField(diffrax.ODETerm(lambda t, y, args: args * t * y), t0, t1, 3.0)
    assert (field.t(0), field.t(1)) == (t0, t1)
    u = jnp.ones(2)
    assert field(1, u) == pytest.approx(3 * t1 * (t1 - t0))
    assert field.increment(field.rate(1, u)) == pytest.approx(field(1, u))
    assert field.reversed()(0, u) == pytest.approx(-field(1, u))


def test_evaluations_are_counted_once_for_all_solves():
    before = _count.cache_info()
    for _ in range(2):
        solvers.count_evaluations(ide.Strang(ide.RK4()), EXACT, 7)
    after = _count.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 1)
