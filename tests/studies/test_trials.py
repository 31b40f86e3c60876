"""The configurations of the runs of a comparison."""

import pytest
from rich.console import Console
from training.tiny_runs import configured

from ide_transformer.studies.schemes.sweep import Trial
from ide_transformer.studies.schemes.trials import Trials
from ide_transformer.training import build_task


@pytest.mark.parametrize(
    ("key", "value", "possible"),
    [
        ("optimizer.beta2", 0.995, True),
        ("optimizer.beta2", 1.089, False),
        ("model.depth", 4, True),
        ("model.depth", 4.5, False),
        # The configuration takes it, but the two heads of the model do not.
        ("model.width", 15, False),
    ],
)
def test_a_trial_is_possible_where_its_model_can_be_made(tmp_path, key, value, possible):
    config = configured(tmp_path, [])
    tasks = {"one": build_task(config)}
    trials = Trials(tmp_path / "runs", {"one": config}, [key], tasks, Console(quiet=True))
    trial = Trial("one", (value,), 3)
    assert trials.possible(trial) is possible
    assert not (tmp_path / "runs").exists()
    if possible:
        section, _, name = key.partition(".")
        assert getattr(getattr(trials.config(trial), section), name) == value
