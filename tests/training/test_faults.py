"""Steps whose loss or gradient is not finite: skipped, counted, and what a run does after too
many of them."""

import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import logged

from ide_transformer import InputError, training
from ide_transformer.tasks import Batch, ClassificationTask, LabelledImages


class Faulty(ClassificationTask):
    """Random images, not finite at some (seed, step)."""

    faults = frozenset()

    @classmethod
    def build(cls, patch):
        random = np.random.default_rng(0)
        images = random.normal(size=(64, 4, 4, 1)).astype(np.float32)
        labels = (images.mean(axis=(1, 2, 3)) > 0).astype(np.int32)
        return cls(*[LabelledImages(images, labels)] * 2, patch=patch)

    def batch(self, step, size, seed):
        inputs, targets = super().batch(step, size, seed)
        return Batch(np.where((seed, step) in self.faults, np.nan, inputs), targets)


def config(depth=1, **changes):
    return training.Config.model_validate(
        {
            "name": "faulty",
            "data": {"name": "digits"},
            "model": {"kind": "image_classifier", "width": 8, "heads": 2, "depth": depth},
            "optimizer": {"warmup": 1},
            "training": {
                "steps": 10,
                "batch_size": 4,
                "log_every": 1,
                "checkpoint_every": 2,
                "evaluate_every": 5,
                "max_bad_steps": 3,
                "sample": 0,
                **changes,
            },
        }
    )


@pytest.fixture
def faulty(monkeypatch):
    """Takes the (seed, step) at which the data are not finite; steps count from 0."""
    for module in (training.build, training.loading):
        monkeypatch.setattr(module, "build_task", lambda config: Faulty.build(2))
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    return lambda faults: monkeypatch.setattr(Faulty, "faults", frozenset(faults))


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(faulty):
    settings = config()
    task = Faulty.build(2)
    model = training.build_model(settings, task, jax.random.key(0))
    optimizer = training.build_optimizer(settings.optimizer, 10)
    state, static = training.initial_state(model, optimizer, jax.random.key(0))
    step = training.make_train_step(optimizer, static, task.loss, max_bad_steps=3)
    faulty([(1, 0)])
    counts = []
    for number, seed in enumerate((0, 1, 1, 0, 1, 1, 1, 0)):
        before = jax.device_get((state.weights, state.optimizer))
        state, metrics = step(state, task.batch(0, 4, seed))
        same = eqx.tree_equal(before, jax.device_get((state.weights, state.optimizer)))
        assert int(state.step) == number + 1
        assert bool(jnp.isfinite(metrics["loss"])) == (seed == 0)
        counts.append((int(metrics["bad_steps"]), int(metrics["bad_steps_in_a_row"]), same))
    # From the third in a row on no update is made, also not by a good batch.
    assert counts == [
        *((0, 0, False), (1, 1, True), (2, 2, True), (2, 0, False)),
        *((3, 1, True), (4, 2, True), (5, 3, True), (6, 4, True)),
    ]


def summary(run):
    return json.loads(run.summary.read_text())


def test_a_few_bad_steps_are_skipped(faulty, tmp_path):
    faulty([(0, 4), (0, 5), (0, 7)])
    run = training.train(config(), runs=tmp_path)
    lines = [line for line in logged(run.path) if "loss" in line]
    bad = [line["step"] for line in lines if line["loss"] is None]
    assert bad == [5, 6, 8] and [line["step"] for line in lines] == list(range(1, 11))
    assert summary(run)["bad_steps"] == 3 and summary(run)["rollbacks"] == 0


@pytest.mark.thorough
@pytest.mark.heavy
def test_after_too_many_the_run_goes_back_once_and_on_with_other_batches(
    faulty, tmp_path, capsys
):
    faulty([(0, step) for step in range(5, 10)])
    run = training.train(config(), runs=tmp_path)
    assert "up to step 8" in (said := " ".join(capsys.readouterr().out.split()))
    assert "going back to step 5" in said
    lines = [line for line in logged(run.path) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert all(line["loss"] is not None for line in lines)
    assert summary(run)["rollbacks"] == 1
    # One that is stopped after it goes on in the same way.
    whole = logged(run.path)
    shutil.rmtree(run.checkpoints / "10")
    run.summary.unlink()
    training.train(config(), runs=tmp_path, resume=True)
    assert logged(run.path) == whole and summary(run)["rollbacks"] == 1


@pytest.mark.heavy
def test_it_goes_back_across_a_refinement(faulty, tmp_path, capsys):
    faulty([(0, step) for step in range(6, 10)])
    settings = config(depth=2, refine={0: 1, 5: 2}, checkpoint_every=4, evaluate_every=9)
    run = training.train(settings, runs=tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "going back to step 4" in said
    assert said.count("step 5: refined to 2 intervals") == 2
    lines = [line for line in logged(run.path) if "loss" in line]
    assert [line["field_evaluations"] for line in lines] == [1.0] * 5 + [2.0] * 5
    assert all(line["loss"] is not None for line in lines)
    assert training.load_run(run.path)[0].control.num_intervals == 2


def test_the_second_time_it_ends_with_a_report(faulty, tmp_path):
    faulty([(seed, step) for seed in (0, 1) for step in range(5, 10)])
    with pytest.raises(InputError, match=r"up to step 8 .*went back before; checkpoint 5 is"):
        training.train(config(), runs=tmp_path)
    run = training.RunFolder(tmp_path / "faulty")
    assert not run.summary.exists()
    assert [line["step"] for line in logged(run.path) if "loss" in line][-1] == 8
    training.load_run(run.path)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(faulty, tmp_path):
    faulty([(0, step) for step in range(1, 10)])
    with pytest.raises(InputError, match="no checkpoint to go back to"):
        training.train(config(checkpoint_every=8), runs=tmp_path)


def test_the_best_checkpoint_is_kept_and_read(faulty, tmp_path, monkeypatch):
    losses = iter([0.5, 0.2, 0.4, 0.3, 0.6])
    monkeypatch.setattr(
        training.phases,
        "make_evaluation",
        lambda static: lambda *_, **__: {"validation_loss": next(losses, 0.7)},
    )
    faulty([])
    run = training.train(config(evaluate_every=2, keep=1), runs=tmp_path)
    assert sorted(path.name for path in run.checkpoints.glob("[0-9]*")) == ["10", "4"]
    best, _ = training.load_run(run.path, checkpoint="best")
    at_step, _ = training.load_run(run.path, checkpoint=4)
    newest, _ = training.load_run(run.path)
    assert eqx.tree_equal(best, at_step) and not eqx.tree_equal(best, newest)
    with pytest.raises(InputError, match=r"no checkpoint 6; the run has 4, 10"):
        training.load_run(run.path, checkpoint=6)
