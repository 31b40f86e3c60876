"""Error budgets: of known errors, against what is measured, of a run, and of every kind of
scheme."""

import dataclasses
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.dynamics import FunctionSolve, refinements, relative_error
from ide_transformer.solvers import with_sub_solver
from tests import layered_models
from tests.helpers import built


class Known(FunctionSolve):
    """A solve whose errors are known, `exact + Σ_i e_i r_i^level`: e_i halved by each
    refinement of a splitting or the depth, and divided by four by a refinement of a grid."""

    domain, has_functions, splits, cost = None, True, True, 1.0
    model, inputs = property(lambda _: layered_models.model_of()), property(lambda _: wave)
    tokens = None
    EXACT = np.array([2.0, 0.0, 0.0])
    ERRORS: ClassVar = {
        "tokens": (np.array([0.1, 0.2, 0.0]), 1 / 4),
        "features": (np.array([-0.02, 0.0, 0.1]), 1 / 4),
        "depth": (np.array([0.0, 0.1, 0.1]), 1 / 2),
        "splitting": (np.array([0.04, 0.0, -0.03]), 1 / 2),
    }

    def __init__(self, cost=1.0, **levels):
        vars(self).update(levels=levels, cost=cost)

    def finer(self, resolution, factor):
        return Known(self.cost * factor, **{**self.levels, resolution: np.log2(factor)})

    def with_finer_splitting(self):
        return Known(1.5, splitting=1)

    def with_exact_flows(self):
        return Known(depth=np.inf)

    def exact(self):
        return Known(**self.levels | dict(depth=np.inf, splitting=np.inf))

    def described(self, resolution):
        return resolution

    def outputs(self, domain):
        errors = [e * r ** self.levels.get(x, 0) for x, (e, r) in self.ERRORS.items()]
        return jnp.asarray(self.EXACT + sum(errors))


def test_a_budget_of_known_errors(monkeypatch):
    monkeypatch.setattr(FunctionSolve, "of", lambda *_: Known())
    budget = ide.error_budget(Known().model, wave)
    total_error, exact = sum(e for e, _ in Known.ERRORS.values()), np.linalg.norm(Known.EXACT)
    size = np.linalg.norm(total_error)
    assert budget.total == pytest.approx(size / exact)
    gains = {}
    for part, (name, (error, rate)) in zip(budget.parts, Known.ERRORS.items(), strict=True):
        remaining = np.linalg.norm(total_error - (1 - rate) * error) / exact
        row = part.resolution, part.cost, part.size, part.share, part.left
        cost, norm = 1.5 if name == "splitting" else 2, np.linalg.norm(error)
        share = error @ total_error / size
        assert row == (
            name,
            cost,
            *map(pytest.approx, (norm / exact, share / exact, remaining)),
        )
        gains[name] = (budget.total - remaining) / (cost - 1)
    assert budget.cheapest.resolution == max(gains, key=gains.get)


WIDTH, POINTS, EXACT = 8, 12, diffrax.Dopri8()


def wave(points):
    return jnp.sin(3 * points[:, 0])


def model_of(solver, attention=True):
    options = {"normalization": ide.LayerNorm(eps=1e-2), "std": 0.3, "key": jax.random.key(0)}
    outside = (ide.Attention(WIDTH, 2, **options),) if attention else ()
    return built(
        lambda: ide.OperatorModel(
            POINTS,
            WIDTH,
            control=ide.Tied((*outside, ide.FeedForward(WIDTH, **options)), 1),
            constraint=ide.Free(),
            solver=solver,
            mesh=ide.Mesh(steps=4),
            modes=1,
            grid="gauss_legendre",
            output_normalization=ide.Free(),
            key=jax.random.key(3),
        )
    )


@pytest.mark.long
@pytest.mark.heavy
def test_a_budget_is_what_is_measured():
    space = ide.FunctionSpace(ide.equation.Legendre(), WIDTH, ide.FeatureDomain(24))
    model = dataclasses.replace(model_of(ide.LieTrotter()), space=space)

    def smooth(coefficients):
        """Coefficients that fall with the numbers of their functions."""
        return coefficients * 0.6 ** np.indices(coefficients.shape).sum(axis=0)

    weights, static = eqx.partition(model, eqx.is_inexact_array)
    solve = FunctionSolve(eqx.combine(jax.tree.map(smooth, weights), static), wave, POINTS)
    reference = solve.exact().finer("tokens", 4).finer("features", 4).outputs(solve.domain)

    def error_of(other):
        return float(relative_error(other.outputs(solve.domain), reference))

    budget = ide.error_budget(solve.model, wave)
    assert budget.total == pytest.approx(error_of(solve), rel=0.2)
    remaining = {name: error_of(finer) for name, finer in refinements(solve).items()}
    assert {part.resolution: part.left for part in budget.parts} == pytest.approx(
        remaining, rel=0.2
    )


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
    refined = refinements(solve)["splitting"].model
    assert (refined.solver, refined.steps) == (finer, steps)
    flows = solve.with_exact_flows().model
    assert (flows.solver, flows.steps) == (with_sub_solver(solver, EXACT), 4)
    exact = solve.exact().model
    assert (exact.solver, exact.steps) == (EXACT, 8)
