"""Every scheme does what its suite asks; schemes with an error do not."""

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import solvers
from ide_transformer.contrib import public
from ide_transformer.equation import parts
from ide_transformer.testing import check_scheme
from ide_transformer.testing.schemes import SchemeProperties
from tests.conformance.schemes import SchemeConformance
from tests.helpers import classes_of, drawn, fast_first
from tests.typed.public_face import MyHeun


def filled(solver):
    def changed(x):
        off = np.random.default_rng(x.size).normal(scale=0.1, size=x.shape)
        return jax.device_put(np.asarray(x) + off)

    return jax.tree.map(lambda x: changed(x) if eqx.is_inexact_array(x) else x, solver)


SIZES = 3, 2, 4
RELAXED = ide.equation.Relaxation(1.0, drawn((3, 4), 1))
EXACT = ide.Damping(np.linspace(0.2, 1.1, 4)), RELAXED
REST = RELAXED, ide.Damping(4.0)
# Some of each class, and those that converge to another equation or need operators of a kind.
CASES = {
    "own": MyHeun(),
    "leapfrog": ide.Leapfrog(),
    "adams_bashforth": ide.AdamsBashforth(3),
    "reversible": ide.AlgebraicallyReversible(ide.Strang()),
    "residual": ide.solvers.Residual(filled(ide.contrib.GatedRK2(4))),
    "velocity": ide.solvers.Velocity(),
    "paper": ide.solvers.PaperSplitting(),
    "consistent_paper": ide.solvers.ConsistentPaperSplitting(),
    "attention_residual": filled(ide.contrib.AttentionResidual(*SIZES)),
    "doubly_stochastic": filled(ide.contrib.DoublyStochasticConnections(*SIZES, 2)),
    "hyper_connections": filled(ide.contrib.HyperConnections(*SIZES, 2)),
    "learned_multistep": filled(ide.contrib.LearnedMultistep(3)),
    "implicit_euler": ide.ImplicitEuler(),
    "implicit_midpoint": ide.ImplicitMidpoint(),
    "matrix_free": ide.solvers.MatrixFree(diffrax.Kvaerno3()),
    "steady_state": ide.contrib.SteadyState(diffrax.Euler()),
    "nesterov": ide.contrib.Nesterov([0.5, 0.3], [0.5, 0.4]),
    "presymplectic": ide.contrib.PresymplecticEuler(1.0, 0.1),
    "exponential": ide.ExponentialEuler(),
    "etdab2": ide.ETDAB2(),
    "etdrk4": ide.ETDRK4(),
    "bidirectional": ide.contrib.Bidirectional(),
    "noisy": ide.contrib.NoisySteps(ide.Strang()),
    "rk4": ide.RK4(),
    "tsit5": diffrax.Tsit5(),
    "exact_flow": ide.LieTrotter(ide.ExactFlow()),
    "lie_strang": ide.LieStrang(),
    "parallel": ide.ParallelSplitting(),
    "suzuki4": ide.Suzuki4(),
    "yoshida4": ide.Yoshida4(),
    "projected": ide.Projected(diffrax.Heun()),
}
OPERATORS = {"exact_flow": EXACT, "steady_state": REST}
QUICK = ("copies", "yaml", "order")
SLOW = tuple(x for x in SchemeConformance.properties if x not in QUICK)
# One of a user, and of those that carry a state, are reversible, or implicit.
KINDS = "own", "adams_bashforth", "reversible", "implicit_midpoint"


def check(name, without):
    SchemeConformance(CASES[name], OPERATORS.get(name), {}).check(without)


# Of classes that other cases are of, too.
ALSO = ["suzuki4", "matrix_free", "projected", "presymplectic", "consistent_paper"]
ALSO += ["lie_strang"]
ORDERS = fast_first(len(CASES) - len(ALSO), sorted(CASES, key=ALSO.__contains__))


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_every_scheme(name):
    check(name, SLOW)


@pytest.mark.parametrize(
    "name", fast_first(1, dict.fromkeys([*KINDS, *CASES]), heavy=len(KINDS) - 1)
)
def test_every_scheme(name):
    check(name, QUICK)


def test_every_class_of_the_package_is_here():
    for name, kind in classes_of(diffrax.AbstractSolver, solvers, public).items():
        assert any(parts(solvers.unroll_stages(x), kind) for x in CASES.values()), name


class Wrong(MyHeun):
    """Wrong in one way."""

    fault: str = eqx.field(static=True, default="")

    def advance(self, field, u):
        if self.fault == "order":
            return u + 0.5 * (field(0, u) + field(0, u + field(0, u)))
        return super().advance(field, u)

    def projected(self):
        return self if self.fault == "constraint" else super().projected()


@pytest.mark.parametrize("rule", ["constraint", "order"])
def test_an_error_is_found(rule):
    other_rules = {*SchemeProperties.properties} - {rule}
    with pytest.raises(AssertionError, match=rf", {rule}: it does not hold"):
        check_scheme(Wrong(fault=rule), without=other_rules)
