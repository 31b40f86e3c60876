"""The budget of a comparison, and which runs there can be."""

import pytest
from helpers import fast_first
from rich.console import Console
from training.tiny_runs import configured

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.studies.schemes import budget
from ide_transformer.studies.schemes.budget import missing, plan_refinement
from ide_transformer.studies.schemes.sweep import Trial
from ide_transformer.studies.schemes.trials import Trials
from ide_transformer.training import build
from ide_transformer.training.phases import Phase, drawn_mesh


FORECAST = ["training.accumulate=2", "training.meshes=[1,2]"], ["training.refine={0: 1, 10: 2}"]


@pytest.mark.parametrize("overrides", fast_first(0, [(x,) for x in FORECAST], heavy=1))
def test_no_program_is_compiled_for_a_forecast_alone(monkeypatch, tmp_path, overrides):
    lowered, texts = Phase.lowered, []

    def noted(phase, *arguments):
        for program in lowered(phase, *arguments):
            texts.append(program.as_text())
            yield program

    monkeypatch.setattr(Phase, "lowered", noted)
    config = configured(tmp_path, overrides)
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
    needed = ["optimizer.schedule=warmup_stable_decay", "model.input_normalization=sphere"]
    assert missing(config) == [*needed, "training.costs.transport=0.01"]
    assert not missing(configured(tmp_path, [*missing(config), "optimizer.warmup=0"]))
    with pytest.raises(ide.InputError, match="depth=1: no coarser mesh is there"):
        plan_refinement(configured(tmp_path, ["model.depth=1"]), budget.Budget(amount=20.0))


def test_a_trial_is_possible_where_its_model_can_be_made(tmp_path):
    config = configured(tmp_path, ["model.depth=1", "model.operators=[attention]"])
    tasks = {"one": build.build_task(config)}
    for key, value, possible in (
        ("optimizer.beta2", 0.995, True),
        ("optimizer.beta2", 1.089, False),
        ("model.depth", 4.5, False),
        # The configuration takes it, but the two heads of the model do not.
        ("model.width", 15, False),
    ):
        quiet = Console(quiet=True)
        trials = Trials(tmp_path / "runs", {"one": config}, [key], tasks, quiet)
        trial = Trial("one", (value,), 3)
        assert trials.possible(trial) is possible
        if possible:
            assert trials.config(trial).optimizer.beta2 == value
    assert not (tmp_path / "runs").exists()
