"""Runs with optimizers of their own, and the range test of the learning rate."""

import json
import shutil

import equinox as eqx
import numpy as np
import pytest
from helpers import fast_first
from running import run_here

from ide_transformer import InputError, training
from ide_transformer.training import Config, find_learning_rate, range_test, step, validated


MEAN = {"kind": "schedule_free", "schedule": "constant", "learning_rate": 0.1, "warmup": 0}


@pytest.fixture
def config(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    tree = {
        "data": {"name": "text", "path": str(text)},
        "model": {"width": 8, "heads": 2, "depth": 1, "context": 8},
        "training": {
            **{"steps": 6, "batch_size": 2, "checkpoint_every": 3},
            **{"evaluate_every": 3, "sample": 0, "log_every": 1},
        },
    }
    return lambda **optimizer: validated(Config, tree | {"optimizer": optimizer}, "test")


@pytest.mark.heavy
def test_schedule_free_runs_evaluate_and_give_the_mean_weights(tmp_path, config, monkeypatch):
    folder = training.train(config(**MEAN), runs=tmp_path)
    summary = json.loads(folder.summary.read_text())
    loss = summary["validation_loss"]

    def loss_of_loaded():
        return training.evaluate_loss(training.load_model(folder.path))["loss"]

    np.testing.assert_allclose(loss_of_loaded(), loss, rtol=1e-5)
    lines = training.read_metrics(folder.metrics)
    on_the_way = {x["step"]: x["validation_loss"] for x in lines if "validation_loss" in x}
    np.testing.assert_allclose(on_the_way[6], loss, rtol=1e-5)
    monkeypatch.setattr(step, "evaluated_weights", lambda state, weights: weights)
    assert abs(loss_of_loaded() - loss) > 1e-3


@pytest.mark.heavy
@pytest.mark.parametrize("kind", fast_first(0, ["schedule_free", "muon"], heavy=1))
def test_runs_go_on_to_the_bit(tmp_path, config, kind):
    keys = MEAN | {"kind": kind, "groups": {"control": 0.5}}
    whole = training.train(config(**keys), runs=tmp_path / "whole")
    folder = training.train(config(**keys), runs=tmp_path / "cut")
    shutil.rmtree(folder.checkpoints / "6")
    folder.summary.unlink()
    training.resume_run(folder.path)
    first, second = (training.load_run(x.path)[0] for x in (whole, folder))
    assert eqx.tree_equal(first, second)


def test_a_wrong_group_leaves_no_folder(tmp_path, config):
    with pytest.raises(InputError, match=r"optimizer\.groups: 'controls' fits no weight"):
        training.train(config(warmup=0, groups={"controls": 2.0}), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_the_suggestion_is_between_the_fastest_fall_and_the_lowest_loss():
    rates = np.geomspace(1e-6, 1.0, 200)
    noise = 0.01 * np.random.default_rng(0).normal(size=200)
    losses = 3 - np.tanh(2 * np.log10(rates / 1e-3)) + 50 * rates + noise
    found = range_test._suggested(rates.tolist(), losses.tolist())
    assert found.fastest is not None
    assert 5e-4 < found.fastest < 2e-3 and 2e-3 < found.lowest < 2e-2
    assert found.suggestion == pytest.approx((found.fastest * found.lowest) ** 0.5)
    assert "optimizer.learning_rate=" in found.text
    rising = range_test._suggested(rates.tolist(), np.linspace(1, 2, 200).tolist())
    assert rising.suggestion is None and "no suggestion" in rising.text


@pytest.mark.heavy
def test_a_range_test_stops_where_the_loss_explodes(tmp_path, config, monkeypatch):
    real, steps = range_test.make_train_step, []

    def exploding(*arguments, **keys):
        """The step, with a loss that explodes at a rate of about 0.03."""
        step = real(*arguments, **keys)

        def take(state, batch):
            state, metrics = step(state, batch)
            steps.append(float(metrics["update_norm"]))
            loss = metrics["loss"] * (100.0 if len(steps) > 30 else 1.0)
            return state, metrics | {"loss": loss}

        return take

    monkeypatch.setattr(range_test, "make_train_step", exploding)
    folder = tmp_path / "found"
    found = find_learning_rate(config(kind="lion", warmup=0), steps=40, folder=folder)
    assert 30 < len(steps) < 34 and len(found.losses) == len(found.rates) == len(steps)
    # Updates of Lion are a sign times the rate.
    np.testing.assert_allclose(steps[20] / steps[0], found.rates[20] / found.rates[0], rtol=0.1)
    np.testing.assert_allclose(found.rates[20], 1e-6 * 1e6 ** (20 / 39), rtol=1e-6)
    written = json.loads((folder / "learning_rate.json").read_text())
    assert written["rates"] == found.rates and written["suggestion"] == found.suggestion
    assert (folder / "learning_rate.png").exists()


def test_a_range_test_of_five_steps_is_refused(config):
    with pytest.raises(InputError, match="steps=5: too few"):
        find_learning_rate(config(warmup=0), steps=5)


@pytest.mark.heavy
def test_a_range_test_does_not_go_on_with_a_run(capsys):
    options = ("--resume", "--find-learning-rate")
    assert "do not go together" in run_here(capsys, "train.py", "runs/x", *options, expected=2)
