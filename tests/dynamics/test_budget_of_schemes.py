"""Error budgets of every kind of scheme, against a solve that does not split; what has none."""

import functools as ft

import diffrax
import jax
import jax.numpy as jnp
import pytest
from helpers import fast_first
from layered_models import model_of

import ide_transformer as ide
from ide_transformer.dynamics import FunctionSolve, refinements
from ide_transformer.solvers import inconsistent, with_sub_solver
from ide_transformer.studies.convergence import schemes


WIDTH, POINTS = 8, 12
SOLVERS = {name: entry.free or entry.sphere for name, entry in schemes().items()}
CONSISTENT = [name for name, solver in SOLVERS.items() if inconsistent(solver) is None]


def splits(name):
    """Whether there is a sub-solver."""
    words = ("lie_trotter", "strang", "parallel", "yoshida", "suzuki")
    return any(word in name for word in words)


def wave(points):
    return jnp.sin(3 * points[:, 0])


def model_with(block, solver, constraint=None, grid="gauss_legendre"):
    """A model with points whose error is far below that of four steps."""
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


@ft.cache
def block_of(kind):
    """The operators that a scheme needs."""
    norm = ide.Free() if kind == "paper" else ide.LayerNorm(eps=1e-2)
    second = ide.FeatureIntegral if kind == "paper" else ide.FeedForward
    keys = jax.random.split(jax.random.key(0), 3)
    block = (
        ide.Attention(WIDTH, 2, normalization=norm, std=0.3, key=keys[0]),
        second(WIDTH, normalization=norm, std=0.3, key=keys[1]),
    )
    damping = ide.Damping(0.5 + jax.random.uniform(keys[2], (WIDTH,)))
    return (*block, damping) if kind == "damped" else block


def named(name):
    """The model that is solved by a scheme of this name."""
    kind = schemes()[name].block
    constraint = ide.Sphere() if kind == "paper" else None
    return model_with(block_of(kind), SOLVERS[name], constraint)


def refined_splitting(model):
    return refinements(FunctionSolve(model, wave, POINTS)).get("splitting")


def error_of(model):
    """Against many steps of an unsplit Runge–Kutta method on twice the points."""
    exact = model.with_solver(diffrax.Tsit5(), steps_per_interval=32)
    exact = FunctionSolve(exact, wave, 2 * POINTS).outputs(model.domain)
    error = FunctionSolve(model, wave, POINTS).outputs(model.domain) - exact
    return float(jnp.linalg.norm(error) / jnp.linalg.norm(exact))


def test_every_splitting_has_an_error_of_its_own():
    for name in CONSISTENT:
        assert (refined_splitting(named(name)) is not None) == splits(name), name
    one = model_with(block_of("transformer")[:1], ide.Strang())
    one = FunctionSolve.of(one, wave, None)
    assert one.tokens == POINTS and list(refinements(one)) == ["tokens", "depth"]


@pytest.mark.parametrize(
    "name",
    fast_first(
        0,
        [
            "strang(heun), exact damping",
            "algebraically_reversible(strang(heun))",
            "parallel_splitting(heun)",
        ],
        heavy=1,
    ),
)
def test_the_parts_make_up_the_error(name):
    model = named(name)
    budget = ide.error_budget(model, wave)
    assert budget.total == pytest.approx(error_of(model), rel=0.01, abs=1e-6)
    assert sum(part.share for part in budget.parts) == pytest.approx(budget.total, rel=1e-6)
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
    ("solver", "finer", "steps"),
    [
        (Opposite(), ide.Strang(), 4),
        (ide.Projected(Opposite()), ide.Projected(ide.Strang()), 4),
        (ide.projected(ide.ParallelSplitting()), ide.Projected(ide.Strang(diffrax.Euler())), 4),
        (ide.Strang(), ide.Strang(), 8),
    ],
    ids=repr,
)
def test_a_splitting_is_refined_by_the_symmetric_one_or_shorter_steps(solver, finer, steps):
    refined = refined_splitting(model_with(block_of("transformer"), solver))
    assert refined.model.discretization.solver == finer
    assert refined.described("splitting") == f"Strang, {steps} steps"


def changed(**options):
    return model_with(block_of("transformer"), ide.Strang()).with_options(**options)


NONE = {
    "inputs of the model are TextInputs": model_of,
    r"with_options\(stepsize_controller=None\)": lambda: changed(
        solver=diffrax.Tsit5(),
        steps_per_interval=1,
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
    ),
    r"with_options\(compute_dtype=None\)": lambda: changed(compute_dtype="bfloat16"),
    "shorter steps HeavyBall does not converge": lambda: changed(solver=ide.HeavyBall()),
    "shorter steps LearnedMultistep does not": lambda: changed(solver=ide.LearnedMultistep(4)),
    "shorter steps Nesterov does not": lambda: changed(solver=ide.projected(ide.Nesterov())),
    "at those of the model.*Diffusion needs tokens": lambda: model_with(
        (ide.Diffusion(0.1),), ide.Strang(), grid="midpoint"
    ),
}


@pytest.mark.parametrize("message", NONE)
def test_models_that_have_none(message):
    with pytest.raises(ide.InputError, match=message):
        ide.error_budget(NONE[message](), wave)
