"""The forecast of a comparison runs the programs of its runs."""

import itertools
import json

import pytest
import yaml
from training.tiny_runs import base, configured

from ide_transformer import training
from ide_transformer.errors import InputError
from ide_transformer.studies.schemes import budget, load_comparison
from ide_transformer.studies.schemes.trials import Trials
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
    """Each measurement gives another time; runs that go on keep their steps."""
    seconds = itertools.count(1)
    monkeypatch.setattr(budget, "seconds_of_a_run", lambda *_: float(next(seconds)))
    monkeypatch.setattr(Trials, "_seconds", lambda *_: 1.0)
    monkeypatch.setattr(training, "train", stopped)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base(tmp_path)))

    def steps(amount, depth=2):
        tree = {
            "mode": "train",
            "base": "base.yaml",
            "budget": {"unit": "seconds", "amount": amount},
            "schemes": {"one": {}, "two": {"model": {"depth": depth}}},
        }
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
        with pytest.raises(InputError, match="stopped") as stop:
            load_comparison(tmp_path / "small.yaml").compare(tmp_path / "compared")
        kept = json.loads((tmp_path / "compared/small/steps.json").read_text())
        return stop.value.args[0], sorted(kept.values())

    assert steps(12.0) == ("stopped after 240 steps", [120, 240])
    assert steps(12.0) == ("stopped after 240 steps", [120, 240])
    assert steps(12.0, depth=3) == ("stopped after 240 steps", [80, 120, 240])
    assert steps(24.0)[0] == "stopped after 120 steps"
    (tmp_path / "compared/small/steps.json").write_text("[]")
    with pytest.raises(InputError, match=r"steps\.json"):
        load_comparison(tmp_path / "small.yaml").compare(tmp_path / "compared")


def stopped(config, **_):
    raise InputError(f"stopped after {config.training.steps} steps")


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
