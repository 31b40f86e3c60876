"""Trackers: the log, what a configuration adds to it, and what must not stop a run."""

import functools as ft
import importlib.util
import json
import math
import shutil
import sqlite3
import threading

import pytest
from training import stub
from training.conftest import config

from ide_transformer import InputError, training
from ide_transformer.training.trackers import AbstractTracker, InBackground, JsonLines


needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="no tensorboardX"
)


class Recorder(AbstractTracker):
    """Keeps its calls; before each it may wait or fail."""

    def __init__(self, before=lambda name: None):
        self.calls, self._before = [], before

    def _called(self, *call):
        self._before(call[0])
        self.calls.append(call)

    start, log = ft.partialmethod(_called, "start"), ft.partialmethod(_called, "log")
    flush, close = ft.partialmethod(_called, "flush"), ft.partialmethod(_called, "close")


@pytest.fixture
def background(tmp_path):
    """Starts a recorder in the background; the recorder, the tracker and the warnings."""

    def start(before, patience=60.0):
        recorder, warned = Recorder(before), []
        tracker = InBackground(recorder, warned.append, patience)
        tracker.start(tmp_path, {"a.b": 1}, 3)
        return recorder, tracker, warned

    return start


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


def test_training_does_not_wait_for_a_tracker_but_a_checkpoint_does(background, tmp_path):
    free = threading.Event()
    recorder, tracker, warned = background(lambda name: free.wait(20))
    for step in (4, 5):
        tracker.log(step, {"loss": 0.1 * step})
    assert recorder.calls == []
    threading.Timer(0.05, free.set).start()
    tracker.flush()
    logged = [("log", step, {"loss": 0.1 * step}) for step in (4, 5)]
    expected = [("start", tmp_path, {"a.b": 1}, 3), *logged, ("flush",)]
    assert recorder.calls == expected
    tracker.close()
    assert recorder.calls == [*expected, ("close",)] and warned == []


@pytest.mark.parametrize("failing", ["start", "log", "flush"])
def test_a_tracker_that_fails_is_left_out(background, failing):
    def fail(name):
        if name == failing:
            raise ValueError("no room")

    recorder, tracker, warned = background(fail)
    tracker.log(4, {})
    tracker.flush()
    tracker.log(5, {})
    tracker.close()
    called = ["start", "log", "flush", "log"]
    assert [call[0] for call in recorder.calls] == [*called[: called.index(failing)], "close"]
    (line,) = warned
    assert line.startswith("warning: Recorder failed with ValueError: no room; the run goes on")


def test_a_tracker_that_hangs_keeps_a_run_neither_from_checkpoints_nor_its_end(background):
    free = threading.Event()
    _, tracker, warned = background(lambda name: free.wait(20), patience=0.01)
    tracker.flush()
    tracker.flush()  # it is waited for once only
    assert len(warned) == 1 and "Recorder has not kept its lines after 0.01 s" in warned[0]
    tracker.close()
    free.set()
    assert len(warned) == 2 and "Recorder is not done after 0.01 s" in warned[1]


def test_trackers_that_cannot_be_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    for name, message in {
        "tensorboard": r"tensorboardX, which is not installed; run: .*\[tensorboard\]",
        "trackio": r"trackio, which is not installed; run: pip .*transformer\[trackio\]'",
        "in_background": "trackers=in_background: .*tensorboard, trackio",
    }.items():
        with pytest.raises(InputError, match=message):
            stub.train(tmp_path / "runs", f"training.trackers=[{name}]")
    assert not list(tmp_path.iterdir())


OWN = """
from training.test_trackers import Recorder

class Own(Recorder):
    made = []
    def __init__(self):
        super().__init__()
        self.made.append(self)
"""


def test_a_run_tells_a_tracker_of_your_own_what_it_logs(there, monkeypatch):
    """Also where the run is resumed from an earlier checkpoint."""
    (there / "own_tracker.py").write_text(OWN)
    monkeypatch.syspath_prepend(there)
    own = config("training.trackers=[own_tracker:Own]")
    run = training.train(own, runs=there / "told")
    lines = [("log", x.pop("step"), x) for x in training.read_metrics(run.metrics)]
    shutil.rmtree(run.checkpoints / "4")
    training.train(own, runs=there / "told", resume=True)
    made = importlib.import_module("own_tracker").Own.made
    for tracker, after in zip(made, (0, 2), strict=True):
        (_, path, values, step), *calls = tracker.calls
        assert (path, values["model.width"], step) == (run.path, 4, after)
        told = [call[:2] for call in calls if call[0] == "log"]
        assert told == [line[:2] for line in lines if line[1] > after]
        others = [call[0] for call in calls if call[0] != "log"]
        assert others == ["flush"] * (2 - after // 2) + ["close"]
    assert [call for call in made[0].calls if call[0] == "log"] == lines


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


def events(folder):
    """The events of all files of a run, in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        # A record is its length, a checksum, the event, a checksum.
        while content:
            length = int.from_bytes(content[:8], "little")
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


@needs_tensorboard
def test_events_of_tensorboard(tmp_path):
    """Also where the run goes on within the second in which it began."""
    for step in (0, 4):
        tracker = training.Tensorboard()
        tracker.start(tmp_path, {"model.width": 8}, step)
        for number in range(step + 1, step + 6):
            tracker.log(number, {"loss": 0.5, "solver.friction": 0.25})
        tracker.flush()
        # As TensorBoard shows the steps of a figure: a start drops what comes later.
        steps = []
        for event in events(tmp_path):
            if event.session_log.status:
                steps = [number for number in steps if number < event.step]
            steps += [event.step for x in event.summary.value if x.tag == "loss"]
        assert steps == [*range(1, step + 6)]
    tracker.close()
    first, *others = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    found = {(x.tag, event.step): x for event in others for x in event.summary.value}
    assert found["loss", 3].simple_value == 0.5
    assert found["solver.friction", 3].simple_value == 0.25
    assert b"model.width: 8" in found["configuration/text_summary", 4].tensor.string_val[0]


@needs_tensorboard
def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    record_writer = importlib.import_module("tensorboardX.record_writer")
    full = lambda path: open("/dev/full", "wb")  # noqa: E731, SIM115
    monkeypatch.setattr(record_writer, "open_file", full)
    warned = []
    tracker = InBackground(training.Tensorboard(), warned.append)
    tracker.start(tmp_path, {}, 0)
    for step in range(400):
        tracker.log(step, {"loss": 0.5})
    tracker.flush()
    tracker.close()
    (line,) = warned
    assert f"No space left on device: '{tmp_path / 'tensorboard'}'" in line
