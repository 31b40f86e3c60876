"""Trackers: the log, what a configuration adds to it, and what must not stop a run."""

import functools as ft
import importlib.util
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from training.conftest import config

from ide_transformer import training
from ide_transformer.training.trackers import AbstractTracker, InBackground


class Recorder(AbstractTracker):
    """Keeps its calls; before each it may wait or fail."""

    def __init__(self, before=lambda name: None):
        self.calls, self._before = [], before

    def _called(self, *call):
        self._before(call[0])
        self.calls.append(call)

    start, log = ft.partialmethod(_called, "start"), ft.partialmethod(_called, "log")
    flush, close = ft.partialmethod(_called, "flush"), ft.partialmethod(_called, "close")


def background(before, patience=60.0):
    """A recorder, the tracker that starts it in the background, and the warnings."""
    recorder, warned = Recorder(before), []
    tracker = InBackground(recorder, warned.append, patience)
    tracker.start(Path("there"), {}, 3)
    return recorder, tracker, warned


def test_training_waits_for_a_tracker_at_checkpoints_alone_and_not_for_ever():
    free = threading.Event()
    recorder, tracker, warned = background(lambda name: free.wait(20))
    tracker.log(4, {"loss": 0.1})
    assert recorder.calls == []
    threading.Timer(0.05, free.set).start()
    tracker.flush()
    assert [call[0] for call in recorder.calls] == ["start", "log", "flush"]
    tracker.close()
    assert recorder.calls[3:] == [("close",)] and warned == []
    free.clear()
    _, tracker, warned = background(lambda name: free.wait(20), patience=0.01)
    tracker.flush()
    tracker.flush()  # it is waited for once only
    assert len(warned) == 1 and "Recorder has not kept its lines after 0.01 s" in warned[0]
    tracker.close()
    free.set()
    assert len(warned) == 2 and "Recorder is not done after 0.01 s" in warned[1]


@pytest.mark.parametrize("failing", ["start", "flush"])
def test_a_tracker_that_fails_is_left_out(failing):
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


def test_a_run_tells_a_tracker_of_your_own_what_it_logs(there, monkeypatch):
    """Also where the run is resumed from an earlier checkpoint."""
    made = []

    class Own(Recorder):
        def __init__(self):
            super().__init__()
            made.append(self)

    monkeypatch.setitem(sys.modules, "own_tracker", SimpleNamespace(Own=Own))
    own = config("training.trackers=[own_tracker:Own]")
    run = training.train(own, runs=there / "told")
    lines = [("log", x.pop("step"), x) for x in training.read_metrics(run.metrics)]
    shutil.rmtree(run.checkpoints / "4")
    training.train(own, runs=there / "told", resume=True)
    assert [call for call in made[0].calls if call[0] == "log"] == lines
    for tracker, after in zip(made, (0, 2), strict=True):
        (_, path, values, step), *calls = tracker.calls
        assert (path, values["model.width"], step) == (run.path, 4, after)
        told = [call[1] for call in calls if call[0] == "log"]
        assert told == [line[1] for line in lines if line[1] > after]
        others = [call[0] for call in calls if call[0] != "log"]
        assert others == ["flush"] * (2 - after // 2) + ["close"]


@pytest.mark.skipif(not importlib.util.find_spec("tensorboardX"), reason="no tensorboardX")
def test_events_of_tensorboard(tmp_path):
    """Also where the run goes on within the second in which it began."""
    from tensorboardX.proto.event_pb2 import Event

    for step in (0, 4):
        tracker = training.Tensorboard()
        tracker.start(tmp_path, {"model.width": 8}, step)
        for number in range(step + 1, step + 6):
            tracker.log(number, {"loss": 0.5})
        tracker.close()
    found = []
    # In the order in which TensorBoard reads them.
    for path in sorted((tmp_path / "tensorboard").iterdir()):
        content = path.read_bytes()
        # A record is its length, a checksum, the event, a checksum.
        while content:
            length = int.from_bytes(content[:8], "little")
            event, content = Event.FromString(content[12 : 12 + length]), content[16 + length :]
            found += [("start", event.step)] * bool(event.session_log.status)
            values = {x.tag: x.simple_value for x in event.summary.value}
            found += [(x, event.step) for tag, x in values.items() if tag == "loss"]
    # A start drops what comes later.
    expected = [[("start", n), *((0.5, n + m) for m in range(5))] for n in (1, 5)]
    assert found == expected[0] + expected[1]
