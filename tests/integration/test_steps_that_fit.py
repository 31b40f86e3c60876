"""Steps with which a scheme would not be itself are refused."""

import jax
import pytest
from helpers import make_equation, random_state
from solvers.linear_problem import initial_state, layered_equation

import ide_transformer as ide


@pytest.mark.parametrize(
    "solver", [ide.AdamsBashforth(2), ide.Leapfrog(), ide.Residual(ide.Leapfrog())]
)
def test_a_multistep_scheme_that_only_ever_starts(solver):
    layered, smooth = make_equation(), make_equation(ide.PiecewiseLinear)
    with pytest.raises(ide.InputError, match="starts again where the field jumps"):
        ide.solve(layered, random_state(), solver=solver)
    ide.solve(layered, random_state(), solver=solver, steps_per_interval=2)
    ide.solve(smooth, random_state(), solver=solver)


def test_coefficients_of_other_layers():
    equation = layered_equation(1, 3)
    solve = jax.jit(lambda solver: ide.solve(equation, initial_state(), solver=solver).u1)
    for layers in (2, 4):
        with pytest.raises(ide.InputError, match=rf"\({layers}, 1\).* depth T=3"):
            solve(ide.HeavyBall([[0.5]] * layers))
    assert solve(ide.HeavyBall([[0.5]] * 3)).shape == initial_state().shape
