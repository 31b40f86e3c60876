"""Error budgets: of known errors, against what is measured, and of a run."""

from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from layered_models import model_of
from running import run_here

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.dynamics import FunctionSolve
from ide_transformer.studies import resolution
from ide_transformer.studies.resolution import (
    problem_of,
    random_problem,
    refinement_errors,
    tried_budget,
)
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
        level = self.levels.get(resolution, 0) + np.log2(factor)
        return Known(self.cost * factor, **{**self.levels, resolution: level})

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
    # A refinement that costs nothing more is the same solve.
    free = budget.cheapest._replace(resolution="splitting", left=0.0, cost=1.0)
    parts = (*budget.parts[:3], free)
    assert budget._replace(parts=parts).cheapest.resolution != "splitting"


def test_orders_are_those_of_the_errors(monkeypatch):
    monkeypatch.setitem(Known.ERRORS, "features", (np.zeros(3), 1 / 4))
    rows = refinement_errors(Known())
    for name, order in (("tokens", 2), ("features", None), ("depth", 1)):
        own = [row for row in rows if row["resolution"] == name]
        assert [row["order"] for row in own] == [None, None, pytest.approx(order)]
        error, rate = Known.ERRORS[name]
        finest = np.linalg.norm(Known().finer(name, 16).outputs(None))
        for level, row in enumerate(own):
            change = np.linalg.norm(error) * (rate**level - rate**4)
            assert row["error"] == pytest.approx(change / finest)


@pytest.mark.long
@pytest.mark.heavy
def test_the_budget_of_a_random_equation_is_what_is_measured():
    trial = tried_budget(random_problem(3))
    parts = {part.resolution: part for part in trial.budget.parts}
    assert [*parts] == ["tokens", "features", "depth", "splitting"]
    assert sum(part.share for part in parts.values()) == pytest.approx(
        trial.budget.total, rel=1e-9
    )
    assert trial.budget.total == pytest.approx(trial.measured, rel=0.2)
    for name, part in parts.items():
        assert part.left == pytest.approx(trial.left[name], rel=0.2)
    assert trial.budget.cheapest.resolution == trial.row["cheapest"]
    assert parts["depth"].cost == 2 and parts["splitting"].cost == 1.5
    assert 2 < parts["features"].cost < 4


@pytest.mark.heavy
def test_outputs_at_points_are_those_of_the_whole_domain():
    """Points without weight see the function and are not seen."""
    solve = random_problem(2)
    other = ide.TokenDomain(jnp.array([[0.3], [0.9]]))
    found = solve.outputs(other)
    seen = solve.domain.with_queries(other.points)
    values = solve.inputs(seen.points)
    for i in range(2):
        one = ide.Field(
            jnp.concatenate([values[:, : solve.tokens], values[:, solve.tokens + i, None]], 1),
            solve.domain.with_queries(other.points[i : i + 1]),
        )
        np.testing.assert_allclose(found[:, i], solve.model(one)[:, -1], atol=1e-12)
    own = solve.model(solve.inputs(solve.domain.points))
    np.testing.assert_allclose(solve.outputs(solve.domain), own, atol=1e-12)


def test_what_the_script_refuses(capsys, tmp_path):
    for arguments, message in (
        ((), "give either a run or --random"),
        (("--random", "0"), "at least 1"),
        (("--random", "1", "--scheme", "etdab2"), "--scheme etdab2: it cannot solve"),
        ((tmp_path, "--scheme", "strang"), "solver.kind=strang"),
        ((tmp_path,), "neither the folder of a run"),
    ):
        assert message in run_here(capsys, "resolution.py", *arguments, expected=2)


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
