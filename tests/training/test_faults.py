"""Steps that are not finite, what a run does after too many, and the best of its checkpoints;
trackers, the log, and what must not stop a run."""

import functools as ft
import shutil
import sys
import threading
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ide_transformer import InputError, training
from ide_transformer.training.folder.metrics import MetricsLog, TrainingProgress
from ide_transformer.training.steps import phases
from ide_transformer.training.trackers import AbstractTracker
from tests.running import logged
from tests.training import stub
from tests.training.conftest import config, equal


SETTINGS = {"steps": 10, "evaluate_every": 5, "max_bad_steps": 3}
# Of an operator that compiles at once.
train = ft.partial(stub.train, model={"operators": ["damping"]})


@pytest.fixture
def faulty(monkeypatch):
    """Takes the (seed, step) at which the loss is not finite; steps count from 0."""
    batch = stub.Stub.batch

    def fail_at(faults):
        def faulty_batch(self, step, size, seed):
            batch_of_task, bad = batch(self, step, size, seed), (seed, step) in faults
            return batch_of_task._replace(
                targets=np.where(bad, 99, batch_of_task.targets)
            )  # no such token

        monkeypatch.setattr(stub.Stub, "batch", faulty_batch)

    return fail_at


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(faulty):
    config = stub.config("model.operators=[feed_forward]")
    task, optimizer = stub.Stub(4), training.build_optimizer(config.optimizer, 10)
    state, static = training.initial_state(stub.model_of(config), optimizer, jax.random.key(0))
    step = training.make_train_step(optimizer, static, task.loss, max_bad_steps=3)
    faulty([(1, 0)])
    counts = []
    for index, seed in enumerate((0, 1, 1, 0, 1, 1, 1, 0)):
        before = jax.device_get((state.weights, state.optimizer))
        state, metrics = step(state, task.batch(0, 4, seed))
        same = equal(before, (state.weights, state.optimizer))
        assert int(state.step) == index + 1
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
    """It then takes other batches. A run that is stopped after that resumes in the same way."""
    faulty([(0, step) for step in (0, 1, 6, 7, 8, 9)])
    every = {"checkpoint_every": 4, "evaluate_every": 9}
    run = train(tmp_path / "runs", training=SETTINGS | every)
    output = " ".join(capsys.readouterr().out.split())
    assert "up to step 9" in output and "going back to step 4" in output
    lines = [line for line in logged(run.path) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 11))
    assert [line["step"] for line in lines if line["loss"] is None] == [1, 2]
    again = stub.resumed(run, tmp_path / "again", after=8)
    assert logged(again.path) == logged(run.path)
    for summary in (x.load_summary() for x in (run, again)):
        assert (summary["bad_steps"], summary["rollbacks"]) == (5, 1)


def test_the_second_time_it_ends_with_a_report(faulty, tmp_path):
    faulty([(seed, step) for seed in (0, 1) for step in range(5, 10)])
    with pytest.raises(InputError, match=r"step 8 .*before"):
        train(tmp_path, training=SETTINGS)
    run = training.RunFolder(tmp_path / "small")
    assert not run.summary.exists() and logged(run.path)[-1]["step"] == 8
    training.load_run(run.path)


def test_a_run_that_learned_nothing_is_an_error(faulty, tmp_path):
    faulty([(0, 0), (0, 1)])
    with pytest.raises(InputError, match=r"2 steps .*step 2 .*no checkpoint"):
        train(tmp_path, training=SETTINGS | {"steps": 2, "checkpoint_every": 1})
    run = training.RunFolder(tmp_path / "small")
    assert not run.summary.exists() and not [*run.checkpoints.glob("[0-9]*")]


def evaluated(monkeypatch, *losses):
    coming = iter(losses)
    evaluate = lambda *_, **__: {"validation_loss": next(coming, losses[-1])}  # noqa: E731
    monkeypatch.setattr(phases.Phase, "evaluate", evaluate)


def test_a_run_without_a_loss_at_its_end_is_an_error(tmp_path, monkeypatch):
    evaluated(monkeypatch, 0.5, np.nan)
    with pytest.raises(InputError, match="not finite"):
        train(tmp_path)
    assert not (tmp_path / "small/summary.json").exists()


def test_the_best_checkpoint_is_kept_and_read(tmp_path, monkeypatch):
    for keep_best, steps in ((False, {"10"}), (True, {"10", "4"})):
        evaluated(monkeypatch, 0.5, 0.2, 0.4, 0.3, 0.6)
        options = {"evaluate_every": 2, "keep": 1, "keep_best": keep_best}
        run = train(tmp_path / str(keep_best), training=SETTINGS | options)
        assert {path.name for path in run.checkpoints.glob("[0-9]*")} == steps
    best, step_4, newest = (
        training.load_run(run.path, checkpoint=x)[0] for x in ("best", 4, "newest")
    )
    assert equal(best, step_4) and not equal(best, newest)


class Recorder(AbstractTracker):
    """Keeps its calls; before each it may wait or fail."""

    __hash__ = None  # as of a dataclass

    def __init__(self, before=lambda name: None):
        self.calls, self._before = [], before

    def _called(self, *call):
        self._before(call[0])
        self.calls.append(call)

    start, log = ft.partialmethod(_called, "start"), ft.partialmethod(_called, "log")
    flush, close = ft.partialmethod(_called, "flush"), ft.partialmethod(_called, "close")


@pytest.fixture
def log_of(tmp_path):
    return lambda tracker: MetricsLog(
        training.RunFolder(tmp_path), [tracker], TrainingProgress(9, 0), 0.0
    )


@pytest.mark.parametrize("failing", ["start", "log", "flush", "close"])
@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_tracker_that_fails_is_told_of_once_and_left_out(failing, error, log_of, capsys):
    def fail(name):
        if name == failing:
            raise error("no room")

    recorder = Recorder(fail)
    log = log_of(recorder)
    log.start({}, 3)
    for step in (4, 5):
        log.write_line({"step": step, "validation_loss": 0.5})
        log.store()
    log.close()
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "warning" in x]
    assert line.startswith(f"warning: Recorder failed with {error.__name__}: no room; the run")
    called = ["start", "log", "flush", "log", "flush", "close"]
    called = [*called[: called.index(failing)], *["close"] * (failing != "close")]
    assert [call[0] for call in recorder.calls] == called


def test_a_run_does_not_wait_for_a_tracker_that_hangs_at_its_end(log_of, capsys, monkeypatch):
    monkeypatch.setattr(MetricsLog, "patience", 0.01)
    free = threading.Event()
    log_of(Recorder(lambda name: free.wait(20))).close()
    free.set()
    assert "Recorder did not close within 0.01 s" in capsys.readouterr().out


def test_a_run_tells_a_tracker_of_your_own_what_it_logs(folder, monkeypatch):
    trackers = []

    class Own(Recorder):
        def __init__(self):
            super().__init__()
            trackers.append(self)

    monkeypatch.setitem(sys.modules, "own_tracker", SimpleNamespace(Own=Own))
    tracked = config("training.trackers=[own_tracker:Own]")
    run = training.train(tracked, runs=folder / "told")
    lines = [("log", x.pop("step"), x) for x in training.read_metrics(run.metrics)]
    shutil.rmtree(run.checkpoints / "4")
    training.train(tracked, runs=folder / "told", resume=True)
    assert [call for call in trackers[0].calls if call[0] == "log"] == lines
    for tracker, after in zip(trackers, (0, 2), strict=True):
        (_, path, values, step), *calls = tracker.calls
        assert (path, values["model.width"], step) == (run.path, 4, after)
        steps = [call[1] for call in calls if call[0] == "log"]
        assert steps == [line[1] for line in lines if line[1] > after]
        other_calls = [call[0] for call in calls if call[0] != "log"]
        assert other_calls == ["flush"] * (2 - after // 2) + ["close"]


def test_a_run_of_wandb_goes_on_under_its_name(tmp_path, monkeypatch):
    wandb = mock.MagicMock()
    wandb.__spec__ = mock.Mock()  # as if it were installed
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (0, 2, 0):
        tracker = training.Wandb("mine")
        tracker.start(tmp_path, {"model.width": 8}, step)
        tracker.log(step + 1, {"loss": 0.5})
        tracker.close()
    options = [call.kwargs for call in wandb.init.call_args_list]
    ids = [x.pop("id") for x in options]
    assert ids[0] == ids[1] != ids[2]
    expected = {"project": "mine", "name": tmp_path.name, "dir": str(tmp_path)}
    assert options == 3 * [expected | {"config": {"model.width": 8}, "resume": "allow"}]
    logged_steps = [mock.call({"loss": 0.5}, step=step) for step in (1, 3, 1)]
    assert wandb.init.return_value.log.call_args_list == logged_steps
    assert wandb.init.return_value.finish.call_count == 3


@pytest.mark.heavy
def test_events_of_tensorboard(tmp_path):
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    tracker = training.Tensorboard()
    tracker.start(tmp_path, {"model.width": 8}, 4)
    tracker.log(5, {"loss": 0.5})
    tracker.close()
    (path,) = (tmp_path / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    # A record is its length, a checksum, the event, a checksum.
    while content:
        length = int.from_bytes(content[:8], "little")
        events.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    losses = [
        (x.step, y.simple_value) for x in events for y in x.summary.value if y.tag == "loss"
    ]
    assert losses == [(5, 0.5)]
    # A start drops what comes later.
    assert [x.step for x in events if x.session_log.status] == [5]
