"""Error budgets of every kind of scheme, against a solve that does not split."""

import diffrax
import jax
import jax.numpy as jnp
import pytest
from helpers import fast_first

import ide_transformer as ide
from ide_transformer.dynamics import FunctionSolve, refinements
from ide_transformer.solvers import inconsistent, with_sub_solver
from ide_transformer.studies.convergence import schemes


WIDTH, POINTS = 8, 12
SOLVERS = {name: entry.free or entry.sphere for name, entry in schemes().items()}
CONSISTENT = [name for name, solver in SOLVERS.items() if inconsistent(solver) is None]
# One of each kind; all others with `--thorough`.
KINDS = [
    "strang(heun)",
    "parallel_splitting(heun)",
    "consistent_paper_splitting",
    "algebraically_reversible(strang(heun))",
    "strang(heun), exact damping",
    "leapfrog",
]


def splits(name):
    """Whether there is a sub-solver."""
    words = ("lie_trotter", "strang", "parallel", "yoshida", "suzuki")
    return any(word in name for word in words)


def wave(points):
    return jnp.sin(3 * points[:, 0])


def model_of(block, solver, constraint=None, grid="gauss_legendre"):
    """With points whose error is far below that of four steps."""
    constraint = ide.Free() if constraint is None else constraint
    return ide.OperatorModel(
        POINTS,
        WIDTH,
        control=ide.Tied(block, 1),
        constraint=constraint,
        discretization=ide.Discretization(solver, steps_per_interval=4),
        modes=1,
        grid=grid,
        input_normalization=constraint,
        output_normalization=ide.Free(),
        std=0.5,
        key=jax.random.key(3),
    )


def model_with(name):
    """The model that is solved by a scheme of this name, with the operators that it needs."""
    entry = schemes()[name]
    norm = ide.Free() if entry.block == "paper" else ide.LayerNorm(eps=1e-2)
    second = ide.FeatureIntegral if entry.block == "paper" else ide.FeedForward
    keys = jax.random.split(jax.random.key(0), 3)
    block = (
        ide.Attention(WIDTH, 2, normalization=norm, std=0.3, key=keys[0]),
        second(WIDTH, normalization=norm, std=0.3, key=keys[1]),
    )
    if entry.block == "damped":
        block = (*block, ide.Damping(0.5 + jax.random.uniform(keys[2], (WIDTH,))))
    return model_of(block, SOLVERS[name], ide.Sphere() if entry.block == "paper" else None)


def error_of(model):
    """Against many steps of an unsplit Runge–Kutta method on twice the points."""
    exact = model.with_solver(diffrax.Tsit5(), steps_per_interval=32)
    exact = FunctionSolve(exact, wave, 2 * POINTS).outputs(model.domain)
    error = FunctionSolve(model, wave, POINTS).outputs(model.domain) - exact
    return float(jnp.linalg.norm(error) / jnp.linalg.norm(exact))


@pytest.mark.parametrize("name", CONSISTENT)
def test_every_splitting_has_an_error_of_its_own(name):
    refined = refinements(FunctionSolve(model_with(name), wave, POINTS))
    assert ("splitting" in refined) == splits(name)


@pytest.mark.heavy
@pytest.mark.parametrize(
    "name", fast_first(0, dict.fromkeys([*KINDS, *CONSISTENT]), heavy=len(KINDS))
)
def test_the_parts_make_up_the_error(name):
    model = model_with(name)
    budget = ide.error_budget(model, wave)
    assert budget.total == pytest.approx(error_of(model), rel=0.01, abs=1e-6)
    assert sum(part.share for part in budget.parts) == pytest.approx(budget.total, rel=1e-6)
    if splits(name):
        exact = with_sub_solver(SOLVERS[name], diffrax.Dopri8())
        exact = model.with_solver(exact, steps_per_interval=4)
        (splitting,) = (part for part in budget.parts if part.resolution == "splitting")
        assert splitting.size == pytest.approx(error_of(exact), rel=0.01, abs=1e-6)


class Opposite(ide.AbstractSequentialSplitting):
    """A splitting of somebody's own: Lie–Trotter from the last operator to the first."""

    sub_solver: diffrax.AbstractSolver = diffrax.Heun()
    splitting_order = 1

    def sub_steps(self, num_operators):
        return [(index, 0.0, 1.0) for index in reversed(range(num_operators))]


@pytest.mark.parametrize(
    ("solver", "finer"),
    [
        (Opposite(), ide.Strang()),
        (ide.Projected(Opposite()), ide.Projected(ide.Strang())),
        (ide.projected(ide.ParallelSplitting()), ide.Projected(ide.Strang(diffrax.Euler()))),
    ],
    ids=repr,
)
def test_a_splitting_of_first_order_is_refined_by_the_symmetric_one(solver, finer):
    model = model_with("strang(heun)").with_solver(solver, steps_per_interval=4)
    refined = refinements(FunctionSolve(model, wave, POINTS))["splitting"]
    assert refined.model.discretization.solver == finer
    assert refined.described("splitting") == "Strang, 4 steps"


def test_another_splitting_is_refined_by_shorter_steps():
    refined = refinements(FunctionSolve(model_with("strang(heun)"), wave, POINTS))
    assert refined["splitting"] == refined["depth"]
    assert refined["splitting"].described("splitting") == "Strang, 8 steps"


@pytest.mark.parametrize("operator", [ide.Diffusion(0.1), ide.DifferenceDiffusion(0.1)])
def test_an_operator_that_needs_a_grid_has_no_budget(operator):
    model = model_of((operator,), ide.Strang(), grid="midpoint")
    with pytest.raises(ide.InputError, match=r"at those of the model.*Diffusion needs tokens"):
        ide.error_budget(model, wave)
