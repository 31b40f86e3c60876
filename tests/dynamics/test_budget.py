"""Error budgets: of known errors, against what is measured, and of a run."""

from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from layered_models import model_of

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.dynamics import FunctionSolve
from ide_transformer.studies import resolution
from ide_transformer.studies.resolution import problem_of, random_problem, tried_budget
from ide_transformer.training.loading import build_start


class Known(FunctionSolve):
    """A solve whose errors are known, `exact + Σ_i e_i r_i^level`: e_i halved by each
    refinement of a splitting or the depth, and divided by four by those of a grid."""

    domain, has_functions, splits, cost = None, True, True, 1.0
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
        return Known(depth=np.inf, splitting=np.inf)

    def described(self, resolution):
        return resolution

    def outputs(self, domain):
        parts = self.ERRORS.items()
        return jnp.asarray(
            self.EXACT + sum(e * r ** self.levels.get(name, 0) for name, (e, r) in parts)
        )


def test_a_budget_of_known_errors(monkeypatch):
    monkeypatch.setattr(FunctionSolve, "of", lambda *_: Known())
    budget = ide.error_budget(model_of(), lambda points: points)
    errors = {name: e for name, (e, _) in Known.ERRORS.items()}
    whole, exact = sum(errors.values()), np.linalg.norm(Known.EXACT)
    size = np.linalg.norm(whole)
    assert budget.total == pytest.approx(size / exact)
    assert [part.resolution for part in budget.parts] == [*errors]
    gains = {}
    for part in budget.parts:
        error, rate = Known.ERRORS[part.resolution]
        assert part.size == pytest.approx(np.linalg.norm(error) / exact)
        assert part.share == pytest.approx(error @ whole / size / exact)
        left = np.linalg.norm(whole - (1 - rate) * error) / exact
        assert part.left == pytest.approx(left)
        assert part.cost == (1.5 if part.resolution == "splitting" else 2)
        gains[part.resolution] = (budget.total - left) / (part.cost - 1)
    assert budget.cheapest.resolution == max(gains, key=gains.get)


@pytest.mark.long
@pytest.mark.heavy
def test_the_budget_of_a_random_equation_is_what_is_measured():
    trial = tried_budget(random_problem(3))
    parts = {part.resolution: part for part in trial.budget.parts}
    assert [*parts] == ["tokens", "features", "depth", "splitting"]
    assert trial.budget.total == pytest.approx(trial.measured, rel=0.2)
    for name, part in parts.items():
        assert part.left == pytest.approx(trial.left[name], rel=0.2)
    assert parts["depth"].cost == 2 and 2 < parts["features"].cost < 4


@pytest.mark.heavy
def test_the_problem_of_a_run_has_the_functions_of_its_task(monkeypatch):
    config = training.Config.model_validate(
        {
            "data": {"name": "burgers_interval", "options": {"held_out_samples": 3}},
            "model": {
                **{"kind": "operator_model", "width": 12, "modes": 4, "basis": "cosine"},
                **{"heads": 2, "depth": 2, "context": 8, "options": {"modes": 2}},
            },
        }
    )
    task, model, _ = build_start(config)
    monkeypatch.setattr(resolution, "evaluation_task", lambda loaded: task)
    solve = problem_of(training.LoadedModel(model, None, Path("run")), samples=3)
    assert solve.domain.num_tokens == 8 and solve.has_functions
    batch = next(task.held_out(3, 3))
    np.testing.assert_allclose(solve.inputs(solve.domain.points), batch.inputs, atol=1e-6)
    assert solve.outputs(solve.domain).dtype == jnp.float64
