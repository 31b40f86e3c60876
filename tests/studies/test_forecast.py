"""The budget of a comparison, and which runs there can be."""

import pytest
from training.tiny_runs import configured

from ide_transformer import training
from ide_transformer.studies.schemes import budget
from ide_transformer.studies.schemes.budget import missing, plan_refinement
from ide_transformer.training import build
from ide_transformer.training.phases import Phase, drawn_mesh


@pytest.mark.heavy
def test_no_program_is_compiled_for_a_forecast_alone(monkeypatch, tmp_path):
    lowered, texts = Phase.lowered, []

    def noted(phase, *arguments):
        for program in lowered(phase, *arguments):
            texts.append(program.as_text())
            yield program

    monkeypatch.setattr(Phase, "lowered", noted)
    config = configured(tmp_path, ["training.accumulate=2", "training.meshes=[1,2]"])
    seconds = budget.seconds_of_a_run(config, build.build_task(config))
    measured = [*texts]
    training.train(config, runs=tmp_path / "runs")
    assert texts == measured * 2 and 0 < seconds < 60


def test_the_cost_of_a_step_is_the_mean_over_its_meshes(tmp_path):
    meshes = [{"steps_per_interval": 1}, {"steps_per_interval": 4, "tokens": 4, "weight": 3}]
    small = ["model.depth=1", "model.operators=[damping]"]
    config = configured(tmp_path, [f"training.meshes={meshes}", *small])
    spent = budget.Budget(unit="field_evaluations", amount=110.0)
    drawn = [drawn_mesh(config.training, step) for step in range(20)]
    assert 0 < sum(drawn) < 20
    task = build.build_task(config)
    assert spent.steps(config, task) == round(110 / (sum((1, 4)[x] for x in drawn) / 20))
    tokens = sum((8, 4)[x] for x in drawn[:10]) / 10
    assert budget.tokens_of_a_sample(config, task, 10) == tokens


def test_a_plan_has_the_runs_that_a_budget_allows(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "seconds_of_a_run", lambda *_: 1.0)
    small = ["model.depth=4", "model.operators=[damping]", "optimizer.warmup=0"]
    config = configured(tmp_path, small)
    rows = plan_refinement(config, budget.Budget(unit="field_evaluations", amount=20.0))
    assert [(row["overrides"], row["field_evaluations"]) for row in rows] == [
        ("training.steps=5 training.refine='{}'", 20),
        ("training.steps=8 training.refine='{0: 1, 0.5: 4}'", 20),
        ("training.steps=7 training.refine='{0: 2, 0.5: 4}'", 20),
    ]
    assert len(missing(config)) == 3
    assert not missing(configured(tmp_path, [*missing(config), "optimizer.warmup=0"]))
