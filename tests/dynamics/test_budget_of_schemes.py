"""Error budgets of every kind of scheme, and models that have none."""

import diffrax
import jax
import jax.numpy as jnp
import layered_models
import pytest
from helpers import built

import ide_transformer as ide
from ide_transformer.dynamics import FunctionSolve, refinements
from ide_transformer.solvers import inconsistent, with_sub_solver
from ide_transformer.studies.convergence import schemes


WIDTH, POINTS, EXACT, NORM = 8, 12, diffrax.Dopri8(), ide.LayerNorm(eps=1e-2)
SOLVERS = {name: entry.free or entry.sphere for name, entry in schemes().items()}
CONSISTENT = [name for name, solver in SOLVERS.items() if inconsistent(solver) is None]


def wave(points):
    return jnp.sin(3 * points[:, 0])


def inside():
    return (ide.FeedForward(WIDTH, normalization=NORM, std=0.3, key=jax.random.key(0)),)


def block():
    outside = ide.Attention(WIDTH, 2, normalization=NORM, std=0.3, key=jax.random.key(0))
    return (outside, *inside())


def model_of(solver, make_block=block, grid="gauss_legendre"):
    return built(
        lambda: ide.OperatorModel(
            POINTS,
            WIDTH,
            control=ide.Tied(make_block(), 1),
            constraint=ide.Free(),
            discretization=ide.Discretization(solver, steps_per_interval=4),
            modes=1,
            grid=grid,
            output_normalization=ide.Free(),
            key=jax.random.key(3),
        )
    )


def test_every_splitting_has_an_error_of_its_own():
    words = ("lie_trotter", "strang", "parallel", "yoshida", "suzuki")
    for name in CONSISTENT:
        refined = refinements(FunctionSolve(model_of(SOLVERS[name]), wave, POINTS))
        assert ("splitting" in refined) == any(word in name for word in words), name
    one = FunctionSolve.of(model_of(ide.Strang(), inside), wave, None)
    assert one.tokens == POINTS and list(refinements(one)) == ["tokens", "depth"]


class Opposite(ide.AbstractSequentialSplitting):
    """A splitting of somebody's own: Lie–Trotter from the last operator to the first."""

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()
    splitting_order = 1

    def sub_steps(self, num_operators):
        return [(index, 0.0, 1.0) for index in reversed(range(num_operators))]


@pytest.mark.parametrize(
    ("solver", "finer", "steps"),
    [
        (ide.Projected(Opposite()), ide.Projected(ide.Strang()), 4),
        (ide.Strang(), ide.Strang(), 8),
    ],
    ids=repr,
)
def test_a_splitting_is_refined_by_the_symmetric_one_or_shorter_steps(solver, finer, steps):
    solve = FunctionSolve(model_of(solver), wave, POINTS)
    refined = refinements(solve)["splitting"].model.discretization
    assert (refined.solver, refined.steps_per_interval) == (finer, steps)
    flows = solve.with_exact_flows().model.discretization
    assert (flows.solver, flows.steps_per_interval) == (with_sub_solver(solver, EXACT), 4)
    exact = solve.exact().model.discretization
    assert (exact.solver, exact.steps_per_interval) == (EXACT, 8)


NONE = {
    "inputs of the model are TextInputs": layered_models.model_of,
    "shorter steps Nesterov does not": lambda: model_of(ide.projected(ide.Nesterov())),
    "at those of the model.*Diffusion needs tokens": lambda: model_of(
        ide.Strang(), lambda: (ide.Diffusion(0.1),), grid="midpoint"
    ),
}


@pytest.mark.parametrize("message", NONE)
def test_models_that_have_none(message):
    with pytest.raises(ide.InputError, match=message):
        ide.error_budget(NONE[message](), wave)
