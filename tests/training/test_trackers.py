"""Trackers: the log, what a configuration adds to it, and what must not stop a run."""

import importlib.util
import json
import math
import sqlite3
import threading
import time

import pytest

from ide_transformer import InputError, training
from ide_transformer.training.trackers import AbstractTracker, InBackground, JsonLines


class Recorder(AbstractTracker):
    """Keeps its calls; before each it may wait or fail."""

    def __init__(self, before=lambda name: None):
        self.calls = []
        self._before = before

    def _called(self, *call):
        self._before(call[0])
        self.calls.append(call)

    def start(self, folder, config, step):
        self._called("start", folder, dict(config), step)

    def log(self, step, values):
        self._called("log", step, dict(values))

    def flush(self):
        self._called("flush")

    def close(self):
        self._called("close")


def test_json_lines_are_appended_and_not_finite_values_are_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        tracker = JsonLines(path)
        tracker.start(tmp_path, {}, 0)
        tracker.log(step, {"loss": math.nan, "rate": 0.5})
        assert json.loads(path.read_text().splitlines()[-1])["step"] == step
        tracker.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": step, "loss": None, "rate": 0.5} for step in (1, 2)]


def test_training_does_not_wait_for_a_tracker(tmp_path):
    """Every call comes, in its order, and none before the tracker is free."""
    free, warned = threading.Event(), []
    recorder = Recorder(lambda name: free.wait(20))
    tracker = InBackground(recorder, warned.append)
    tracker.start(tmp_path, {"a.b": 1}, 3)
    for step in (4, 5):
        tracker.log(step, {"loss": 0.1 * step})
    assert recorder.calls == []
    free.set()
    tracker.close()
    logged = [("log", step, {"loss": 0.1 * step}) for step in (4, 5)]
    assert recorder.calls == [("start", tmp_path, {"a.b": 1}, 3), *logged, ("close",)]
    assert warned == []


def test_a_tracker_that_fails_is_left_out(tmp_path):
    def fail(name):
        if name == "log":
            raise ValueError("no room")

    recorder, warned = Recorder(fail), []
    tracker = InBackground(recorder, warned.append)
    tracker.start(tmp_path, {}, 0)
    tracker.log(1, {})
    tracker.log(2, {})
    tracker.close()
    assert [call[0] for call in recorder.calls] == ["start", "close"]
    assert len(warned) == 1
    assert warned[0].startswith("warning: Recorder failed with ValueError: no room; the run")


def test_a_tracker_that_hangs_does_not_keep_a_run_from_its_end(tmp_path):
    free, warned = threading.Event(), []
    tracker = InBackground(Recorder(lambda name: free.wait(20)), warned.append, patience=0.01)
    tracker.start(tmp_path, {}, 0)
    tracker.close()
    free.set()
    assert len(warned) == 1 and "Recorder is not done after 0.01 s" in warned[0]


def test_a_checkpoint_waits_for_what_was_logged(tmp_path):
    """Not for a tracker that has failed, and once only for one that hangs."""
    recorder, warned = Recorder(lambda name: time.sleep(0.05)), []
    tracker = InBackground(recorder, warned.append)
    tracker.start(tmp_path, {}, 0)
    tracker.flush()
    assert [call[0] for call in recorder.calls] == ["start", "flush"]
    tracker.close()

    def fail(name):
        raise ValueError("no room")

    tracker = InBackground(Recorder(fail), warned.append)
    tracker.start(tmp_path, {}, 0)
    tracker.flush()
    tracker.close()
    assert len(warned) == 1 and "Recorder failed with ValueError: no room" in warned[0]
    free = threading.Event()
    tracker = InBackground(Recorder(lambda name: free.wait(20)), warned.append, patience=0.01)
    tracker.start(tmp_path, {}, 0)
    tracker.flush()
    tracker.flush()
    free.set()
    assert len(warned) == 2 and "Recorder has not kept its lines after 0.01 s" in warned[1]


def config(*trackers, **data):
    return training.Config.model_validate(
        {
            "name": "small",
            "data": {"name": "text", **data},
            "model": {"width": 8, "heads": 2, "depth": 1, "context": 8},
            "optimizer": {"warmup": 1},
            "training": {
                "steps": 4,
                "batch_size": 4,
                "log_every": 1,
                "evaluate_every": 4,
                "checkpoint_every": 2,
                "sample": 0,
                "trackers": list(trackers),
            },
        }
    )


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("trackio", "trackio")]
)
def test_a_missing_package_is_said_before_anything_is_written(
    name, package, tmp_path, monkeypatch
):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda x, *rest: None if x == package else find_spec(x)
    )
    message = rf"training.trackers: the package {package} is not installed; run: pip install "
    with pytest.raises(InputError, match=rf"{message}'ide_transformer\[{name}\]'"):
        training.train(config(name, path="nowhere.txt"), runs=tmp_path / "runs")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["tensorbord", "json_lines", "in_background"])
def test_unknown_trackers(name, tmp_path):
    with pytest.raises(InputError, match=f"training.trackers={name}: .*tensorboard, trackio"):
        training.train(config(name, path="nowhere.txt"), runs=tmp_path / "runs")


OWN = """
import json
from ide_transformer.training import AbstractTracker

class Own(AbstractTracker):
    def start(self, folder, config, step):
        self.file = (folder / "own.jsonl").open("a")
        self.line(["start", config["model.width"], step])
    def log(self, step, values):
        self.line(["log", step, values["loss"] if "loss" in values else None])
    def flush(self):
        self.line(["flush"])
    def close(self):
        self.line(["close"])
        self.file.close()
    def line(self, content):
        self.file.write(json.dumps(content) + "\\n")
"""


@pytest.mark.heavy
def test_a_run_tells_its_trackers_what_it_logs(tmp_path, monkeypatch):
    """A tracker of a user's own, also where the run is resumed from an earlier checkpoint."""
    (tmp_path / "own_tracker.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    (tmp_path / "text.txt").write_text("the sea is wide and the night is long. " * 40)
    run = config("own_tracker:Own", path=str(tmp_path / "text.txt"))
    folder = training.train(run, runs=tmp_path / "runs")
    (folder.checkpoints / "4").rename(tmp_path / "4")
    training.train(run, runs=tmp_path / "runs", resume=True)
    logged = [
        ["log", line["step"], line.get("loss")]
        for line in training.read_metrics(folder.metrics)
    ]
    written = (folder.path / "own.jsonl").read_text().splitlines()
    first, again = ([x for x in logged if (x[1] > 2) is late] for late in (False, True))
    end = [*again, ["flush"], ["close"]]
    expected = [["start", 8, 0], *first, ["flush"], *end, ["start", 8, 2], *end]
    assert [json.loads(line) for line in written] == expected


@pytest.mark.heavy
@pytest.mark.skipif(importlib.util.find_spec("trackio") is None, reason="no trackio")
def test_trackio_keeps_the_lines_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for step in (0, 2):  # the second time it goes on with the same run
        tracker = training.Trackio(project="seen")
        tracker.start(tmp_path / "quick", {"model.width": 8}, step)
        tracker.log(step + 1, {"loss": 0.5})
        tracker.close()
    rows = sqlite3.connect(tmp_path / "trackio/seen.db").execute(
        "select run_name, step, metrics from metrics order by step"
    )
    lines = [(name, step, json.loads(values)) for name, step, values in rows]
    assert lines == [("quick", step, {"loss": 0.5}) for step in (1, 3)]
