"""Event files of TensorBoard, read back."""

import importlib.util
import signal
import subprocess
import sys
import time

import pytest
from helpers import SCRIPTS
from training.tiny_runs import write_config

from ide_transformer import training
from ide_transformer.training.trackers import InBackground


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorboardX") is None, reason="no tensorboardX"
)


def events(folder):
    """The events of all files of a run, in the order in which TensorBoard reads them."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        # A record is its length, a checksum, the event, a checksum. The last may be cut.
        while len(content) >= 16 + (length := int.from_bytes(content[:8], "little")):
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def seen(folder, tag):
    """The steps of a figure as TensorBoard shows them: a start drops what comes later."""
    steps = []
    for event in events(folder):
        if event.session_log.status:
            steps = [step for step in steps if step < event.step]
        steps += [event.step for value in event.summary.value if value.tag == tag]
    return steps


def test_events(tmp_path):
    tracker = training.Tensorboard()
    tracker.start(tmp_path, {"model.width": 8}, 2)
    tracker.log(3, {"loss": 0.5, "solver.friction": 0.25})
    tracker.close()
    first, begins, *others = events(tmp_path)
    assert first.file_version == "brain.Event:2"
    assert begins.session_log.status == 1 and begins.step == 3
    found = {(x.tag, event.step): x for event in others for x in event.summary.value}
    assert found["loss", 3].simple_value == 0.5
    assert found["solver.friction", 3].simple_value == 0.25
    assert b"model.width: 8" in found["configuration/text_summary", 2].tensor.string_val[0]


def test_what_was_logged_before_a_checkpoint_is_in_the_file(tmp_path):
    """Also where the run goes on within the second in which it began."""
    for step in (0, 4):
        tracker = training.Tensorboard()
        tracker.start(tmp_path, {}, step)
        for number in range(step + 1, step + 6):
            tracker.log(number, {"loss": 0.5})
        tracker.flush()
        assert seen(tmp_path, "loss") == [*range(1, step + 6)]


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


@pytest.mark.heavy
def test_a_run_that_is_killed_has_all_of_its_curve(tmp_path):
    config = write_config(tmp_path, steps=10**6)
    command = [sys.executable, SCRIPTS / "train.py", config, "training.trackers=[tensorboard]"]
    command += ["training.evaluate_every=1000000", "--runs", tmp_path]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        # One of the first checkpoints, before which TensorBoard would write nothing.
        while not (tmp_path / "small/checkpoints/30").exists():
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    newest = max(int(x.name) for x in (tmp_path / "small/checkpoints").glob("*[0-9]"))
    assert seen(tmp_path / "small", "loss")[:newest] == [*range(1, newest + 1)]
    resumed = [*command, "--resume"]
    with subprocess.Popen(resumed, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / f"small/checkpoints/{newest + 20}").exists():
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
    steps = seen(tmp_path / "small", "loss")
    assert steps == [*range(1, len(steps) + 1)] and len(steps) >= newest + 20
