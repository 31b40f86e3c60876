"""The forecast of a comparison runs the programs of its runs."""

import itertools

import pytest
from training.tiny_runs import configured

from ide_transformer import training
from ide_transformer.errors import InputError
from ide_transformer.studies.schemes import budget
from ide_transformer.studies.schemes.budget import Steps
from ide_transformer.training import build
from ide_transformer.training.meshes import drawn_mesh
from ide_transformer.training.phases import Phase


@pytest.fixture
def texts(monkeypatch):
    """Those of the programs that are lowered, in order."""
    lowered, found = Phase.lowered, []

    def noted(phase, *arguments):
        for program in lowered(phase, *arguments):
            found.append(program.as_text())
            yield program

    monkeypatch.setattr(Phase, "lowered", noted)
    return found


@pytest.mark.heavy
@pytest.mark.parametrize(
    "overrides",
    [
        ["training.accumulate=2", "training.average=0.9", "training.gradient=direct"],
        ["training.meshes=[1,2]"],
        ["training.refine={0: 1, 10: 2}"],
    ],
    ids=["accumulate", "meshes", "refine"],
)
def test_no_program_is_compiled_for_a_forecast_alone(texts, tmp_path, overrides):
    config = configured(tmp_path, overrides)
    seconds = budget.seconds_of_a_run(config, build.build_task(config))
    measured = [*texts]
    training.train(config, runs=tmp_path / "runs")
    assert texts == measured * 2 and 0 < seconds < 60


def test_steps_that_are_measured_are_kept(tmp_path, monkeypatch):
    """Each measurement gives another time."""
    seconds = itertools.count(1)
    monkeypatch.setattr(budget, "seconds_of_a_run", lambda *_: float(next(seconds)))
    config, file = configured(tmp_path, []), tmp_path / "compared/steps.json"
    task = build.build_task(config)
    spent = budget.Budget(unit="seconds", amount=12.0)
    first = Steps.of_file(file, spent)
    assert first.of("a", config, task) == 240 and first.of("b", config, task) == 120
    assert not file.exists()
    first.write(file)
    again = Steps.of_file(file, spent)
    assert again.of("a", config, task) == 240 and again.of("b", config, task) == 120
    deeper = configured(tmp_path, ["model.depth=3"])
    assert again.of("b", deeper, task) == 80 and again.of("c", config, task) == 60
    with pytest.raises(InputError, match="have 12 seconds, and not 13 seconds"):
        Steps.of_file(file, budget.Budget(unit="seconds", amount=13.0))
    assert Steps.of_file(file, budget.Budget(amount=13.0)).of("a", config, task) == 13
    file.write_text("[]")
    with pytest.raises(InputError, match=r"steps.json is damaged"):
        Steps.of_file(file, spent)


def test_the_evaluations_of_a_step_are_the_mean_over_its_meshes(tmp_path):
    config = configured(tmp_path, ["training.meshes=[1,2,8]"])
    spent = budget.Budget(unit="field_evaluations", amount=110.0)
    drawn = [(1, 2, 8)[drawn_mesh(config.training, x)] for x in range(20)]
    expected = round(110 / (sum(drawn) / 20))
    assert spent.steps(config, build.build_task(config)) == expected


def test_the_tokens_of_a_sample_are_the_mean_over_the_meshes(tmp_path):
    config = configured(tmp_path, ["training.meshes=[{tokens: 4}, {tokens: 16, weight: 3}]"])
    drawn = [(4, 16)[drawn_mesh(config.training, x)] for x in range(10)]
    task = build.build_task(config)
    assert budget.tokens_of_a_sample(config, task, 10) == sum(drawn) / 10
