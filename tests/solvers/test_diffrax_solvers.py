"""Solvers of diffrax of each kind have their order; those of other kinds are refused."""

import inspect

import diffrax
import pytest
from scipy.linalg import expm

import ide_transformer as ide
from tests.helpers import largest, observed_order
from tests.solvers.linear_problem import (
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)


CLASSES = {
    name: kind
    for name, kind in vars(diffrax).items()
    if inspect.isclass(kind) and issubclass(kind, diffrax.AbstractSolver)
    if not name.startswith("Abstract")
}
# Explicit and implicit ones, with one stage and several, and two that carry a state.
STEPS = {
    "Dopri5": (8, 16),
    "Euler": (128, 256),
    "HalfSolver": (32, 64),
    "Kvaerno3": (32, 64),
    "LeapfrogMidpoint": (64, 128),
    "ReversibleHeun": (64, 128),
}
# Other tables of coefficients.
LIKE_THESE = {"Bosh3", "Dopri8", "Heun", "ImplicitEuler", "Kvaerno4", "Kvaerno5"}
LIKE_THESE |= {"Midpoint", "Ralston", "Tsit5"}
REFUSED = {
    "SemiImplicitEuler": "LieTrotter",
    **dict.fromkeys(("KenCarp3", "KenCarp4", "KenCarp5", "Sil3"), "implicit"),
}
MATRICES = matrices(2, size=0.8)
EQUATION = tied_equation(*MATRICES)


def solver_of(name):
    return CLASSES[name](*[diffrax.Midpoint()] * (name == "HalfSolver"))


@pytest.mark.parametrize("name", STEPS)
def test_a_solver_of_diffrax_has_its_order(name):
    solver = solver_of(name)
    exact = initial_state() @ expm(2 * sum(MATRICES))
    order = observed_order(lambda n: largest(final(EQUATION, solver, n), exact), STEPS[name])
    assert abs(order - solver.order(EQUATION.terms)) < (0.15 if order < 4.5 else 0.4)


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - STEPS.keys() - LIKE_THESE))
def test_another_solver_of_diffrax_is_refused(name):
    message = REFUSED.get(name, "stochastic")
    with pytest.raises(ide.InputError, match=f"{name} .*{message}"):
        ide.solve(EQUATION, initial_state(), solver=ide.Strang(solver_of(name)))


def test_a_leapfrog_over_jumps_is_refused():
    with pytest.raises(ide.InputError, match=r"ide\.Leapfrog\(\)"):
        ide.solve(layered_equation(), initial_state(), solver=diffrax.LeapfrogMidpoint())
