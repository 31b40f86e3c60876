"""Steps whose loss or gradient is not finite: skipped, counted, and what a run does after too
many of them; and the best of its checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import logged
from training import stub
from training.conftest import equal

from ide_transformer import InputError, training


SETTINGS = {"steps": 10, "evaluate_every": 5, "max_bad_steps": 3}


@pytest.fixture
def faulty(monkeypatch):
    """Takes the (seed, step) at which the loss is not finite; steps count from 0."""
    batch = stub.Stub.batch

    def fail_at(faults):
        def faulty_batch(self, step, size, seed):
            found, bad = batch(self, step, size, seed), (seed, step) in faults
            return found._replace(targets=np.where(bad, 99, found.targets))  # no such token

        monkeypatch.setattr(stub.Stub, "batch", faulty_batch)

    return fail_at


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(faulty):
    config = stub.config("model.operators=[feed_forward]")
    task, optimizer = stub.Stub(4), training.build_optimizer(config.optimizer, 10)
    state, static = training.initial_state(stub.model_of(config), optimizer, jax.random.key(0))
    step = training.make_train_step(optimizer, static, task.loss, max_bad_steps=3)
    faulty([(1, 0)])
    counts = []
    for number, seed in enumerate((0, 1, 1, 0, 1, 1, 1, 0)):
        before = jax.device_get((state.weights, state.optimizer))
        state, metrics = step(state, task.batch(0, 4, seed))
        same = equal(before, (state.weights, state.optimizer))
        assert int(state.step) == number + 1
        assert bool(jnp.isfinite(metrics["loss"])) == (seed == 0)
        counts.append((int(metrics["bad_steps"]), int(metrics["bad_steps_in_a_row"]), same))
    # From the third in a row on no update is made, also not by a good batch.
    assert counts == [
        *((0, 0, False), (1, 1, True), (2, 2, True), (2, 0, False)),
        *((3, 1, True), (4, 2, True), (5, 3, True), (6, 4, True)),
    ]


def test_bad_steps_are_skipped_and_after_too_many_a_run_goes_back_once(
    faulty, tmp_path, capsys
):
    """Then with other batches, also across a refinement. One that is stopped after it goes on
    in the same way."""
    faulty([(0, step) for step in (0, 1, 6, 7, 8, 9)])
    more = {"refine": {0: 1, 5: 2}, "checkpoint_every": 4, "evaluate_every": 9}
    run = stub.train(tmp_path / "runs", training=SETTINGS | more)
    said = " ".join(capsys.readouterr().out.split())
    assert "up to step 9" in said and "going back to step 4" in said
    lines = [line for line in logged(run.path) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["field_evaluations"] for line in lines] == [1.0] * 5 + [2.0] * 5
    assert [line["step"] for line in lines if line["loss"] is None] == [1, 2]
    again = stub.resumed(run, tmp_path / "again", after=8)
    assert logged(again.path) == logged(run.path)
    for summary in (x.load_summary() for x in (run, again)):
        assert (summary["bad_steps"], summary["rollbacks"]) == (2, 1)


def test_the_second_time_or_without_a_checkpoint_it_ends_with_a_report(faulty, tmp_path):
    faulty([(seed, step) for seed in (0, 1) for step in range(5, 10)])
    with pytest.raises(InputError, match=r"up to step 8 .*went back before; checkpoint 4 is"):
        stub.train(tmp_path, training=SETTINGS)
    run = training.RunFolder(tmp_path / "small")
    assert not run.summary.exists() and logged(run.path)[-1]["step"] == 8
    training.load_run(run.path)
    with pytest.raises(InputError, match="no checkpoint to go back to"):
        stub.train(tmp_path, training=SETTINGS | {"checkpoint_every": 10})


def test_the_best_checkpoint_is_kept_and_read(tmp_path, monkeypatch):
    losses = iter([0.5, 0.2, 0.4, 0.3, 0.6])
    evaluate = lambda *_, **__: {"validation_loss": next(losses, 0.7)}  # noqa: E731
    monkeypatch.setattr(training.phases, "make_evaluation", lambda static: evaluate)
    kept = {"evaluate_every": 2, "keep": 1, "keep_best": True}
    run = stub.train(tmp_path, training=SETTINGS | kept)
    assert sorted(path.name for path in run.checkpoints.glob("[0-9]*")) == ["10", "4"]
    best, fourth, newest = (
        training.load_run(run.path, checkpoint=x)[0] for x in ("best", 4, "newest")
    )
    assert equal(best, fourth) and not equal(best, newest)
