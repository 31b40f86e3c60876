"""The folders of runs: resumed, or left as they were; checkpoints that are damaged, of which
none is read; names, and the code that is recorded."""

import importlib
import json
import re
import shutil
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ide_transformer import InputError, tasks, training
from ide_transformer.training.folder import checkpoints, metrics, run_folder as folders
from tests.helpers import fast_first
from tests.running import logged, run_here
from tests.training import stub
from tests.training.conftest import RUN, config, contents, equal


def resume():
    return training.train(config(), runs=RUN.parent, resume=True)


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def replaced(old, new):
    return lambda path: path.write_bytes(path.read_bytes().replace(old, new, 1))


CONFIG, CHECKPOINTS = RUN / "config.yaml", RUN / "checkpoints"
DAMAGES = {
    "its tokenizer and its data changed since": (Path("text.txt"), replaced(b"wide", b"!")),
    "its config.yaml changed since": (CONFIG, replaced(b"\n", b"\n# a note\n")),
    "metrics.jsonl, line 1: not a": (RUN / "metrics.jsonl", replaced(b"{", b"\xff\xfe\x00\n{")),
    "fingerprints.json is missing": (RUN / "fingerprints.json", removed),
    r"no checkpoint that can be read: .*/2 is damaged: ": (CHECKPOINTS / "2/default", removed),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_refusal_leaves_the_run_as_it_was(killed, message):
    path, damage = DAMAGES[message]
    damage(path)
    before = contents(killed)
    with pytest.raises(InputError, match=message):
        resume()
    assert contents(killed) == before


def test_a_run_goes_on_by_its_name_and_a_finished_one_is_left_alone(killed, end, capsys):
    """A line that a kill cut short is made again; what is logged and kept may change."""
    run = training.RunFolder(RUN)
    lines = [line | {"seconds": 1e4 * line["step"]} for line in logged(RUN)]
    slower = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics.write_text(slower + '{"step": 5, "lo')
    with run.sole_use(), pytest.raises(InputError, match="another process is training"):
        resume()
    with pytest.raises(InputError, match=r"training\.seed: 0 there, 5 here"):
        training.train(config("training.seed=5"), runs=RUN.parent, resume=True)
    output = run_here(capsys, "train", "small", "--resume", "training.log_every=4")
    assert "small: going on from step 2; steps 3 to 4 are made again" in output
    assert [x["step"] for x in logged(RUN) if "loss" in x] == [1, 2, 4]
    assert equal(training.load_run(RUN)[0], end)
    # The time of all starts, also that after the checkpoint of step 2.
    summary = run.load_summary()
    assert summary["steps"] == 4 and 4e4 < summary["seconds"] < 5e4
    assert metrics.trained_seconds(run) == summary["seconds"]  # not the time of the last line
    before = contents(killed)
    assert resume().path == RUN and contents(killed) == before


def test_a_run_without_a_checkpoint_begins_again(killed, end):
    shutil.rmtree(CHECKPOINTS)
    CHECKPOINTS.mkdir()
    with pytest.raises(InputError, match="small has no checkpoint"):
        training.load_run(RUN)
    assert resume().path == RUN
    assert equal(training.load_run(RUN)[0], end)


def test_a_run_that_cannot_be_made_longer_is_left_alone(folder):
    decay = ["optimizer.schedule=warmup_stable_decay", "optimizer.decay=0.6"]
    for schedule, overrides, message in (
        ([], "training.steps=8", r"step 3 on .* Start a new"),
        (["optimizer.schedule=constant"], "training.steps=3", "4 there, 3 here"),
        (decay, "training.steps=8", r"step 4 on .* Start a new"),
    ):
        CONFIG.write_text(training.dump_config(config(*schedule)))
        before = contents(folder)
        with pytest.raises(InputError, match=message):
            training.resume_run(RUN, [overrides])
        assert contents(folder) == before


def test_a_run_that_is_asked_to_stop_saves_a_checkpoint_and_goes_on(folder, end, monkeypatch):
    batch, requests = tasks.LanguageTask.part_of_batch, []

    def ask(self, step, *arguments):
        if step == 2 and not requests:
            requests.append(signal.raise_signal(signal.SIGTERM))
        return batch(self, step, *arguments)

    monkeypatch.setattr(tasks.LanguageTask, "part_of_batch", ask)
    with pytest.raises(training.Stopped, match=r"step \d; .*--resume"):
        training.train(config(), runs=Path("again"))
    run = training.train(config(), runs=Path("again"), resume=True)
    assert requests and logged(run.path) == logged(RUN)
    assert equal(training.load_run(run.path)[0], end)


# In the middle of a checkpoint, and the thread that reads finds no loop any more.
reading_stops = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[(len(content) - 1) // 2] ^= 1
    path.write_bytes(content)


@reading_stops
@pytest.mark.parametrize("damage", fast_first(1, [flip_bit, removed]))
def test_no_damaged_file_of_a_checkpoint_is_read(folder, end, damage):
    """Each file of the newest checkpoint in turn: a run gives the weights of its end, or of the
    checkpoint before with a warning that names the damaged one."""
    shutil.copytree(CHECKPOINTS, "intact")
    for path in filter(Path.is_file, sorted((CHECKPOINTS / "4").rglob("*"))):
        damage(path)
        with warnings.catch_warnings(record=True) as messages:
            warnings.simplefilter("always")
            model, _ = training.load_run(RUN)
        is_damaged = any("checkpoint 2" in str(x.message) for x in messages)
        assert equal(model, end) != is_damaged, path
        shutil.rmtree(CHECKPOINTS)
        shutil.copytree("intact", CHECKPOINTS)


def test_a_checkpoint_of_another_step_run_or_release_is_not_read(folder, monkeypatch):
    (CHECKPOINTS / "2").rename(CHECKPOINTS / "6")
    with pytest.warns(UserWarning, match=r"6 is damaged: .*step 2"):
        training.load_run(RUN)
    (CHECKPOINTS / "6").rename(CHECKPOINTS / "2")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_FORMAT", 3)
        with pytest.raises(InputError, match=r"checkpoints/4 .*release"):
            training.load_run(RUN)
    fingerprints = json.loads((RUN / "fingerprints.json").read_text())
    (RUN / "fingerprints.json").write_text(json.dumps({**fingerprints, "run": "another"}))
    with pytest.raises(InputError, match=r"checkpoints/4 .*another run"):
        training.load_run(RUN)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(folder, end):
    shutil.rmtree(CHECKPOINTS / "4")
    for step in ("4", "999"):
        (CHECKPOINTS / step).mkdir()
    with pytest.warns(UserWarning, match="checkpoint 2"):
        resume()
    assert equal(training.load_run(RUN)[0], end)
    assert len(list((RUN / "checkpoints-damaged").iterdir())) == 2


def test_brackets_in_the_name_of_a_folder_are_no_pattern(folder):
    odd = Path("runs [v2] *?%$ ☃")
    assert training.load_run(stub.start_run(config(), odd).path)[1].path == odd / RUN.name


def make_folder(runs, name):
    return folders.new_folder(training.Config(name=name), runs, lambda path: None)


def test_a_name_with_a_number_is_another_run(tmp_path):
    for name in ("small", "small-8"):
        make_folder(tmp_path, name)
        assert folders.folder_to_resume(name, tmp_path).path == tmp_path / name
    assert make_folder(tmp_path, "small").path.name == "small-9"
    several = r"small \(step 0\), .*small-9 \(step 0\)"
    with pytest.raises(InputError, match=several):
        folders.folder_to_resume("small", tmp_path)
    # The one that is not finished; where all are, the newest.
    for finished, resumed in (("small-9", "small"), ("small", "small-9")):
        (tmp_path / finished / "summary.json").write_text("{}")
        assert folders.folder_to_resume("small", tmp_path).path == tmp_path / resumed


def test_runs_that_start_at_once_have_folders_of_their_own(tmp_path):
    start = threading.Barrier(8)

    def begin(_):
        start.wait()
        return make_folder(tmp_path, "same").path.name

    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(begin, range(8)))
    assert len(set(names)) == 8
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    # A number that none of them has is a part of another name.
    (tmp_path / "other-1").mkdir()
    assert make_folder(tmp_path, "other").path.name == "other"


def test_the_code_of_each_start_is_recorded_with_that_of_own_modules(folder, monkeypatch):
    run = training.RunFolder(folder / RUN)
    (first,) = run.sources
    for source in (first, "another"):
        with monkeypatch.context() as patch:
            patch.setattr(folders, "source", lambda config, source=source: source)
            run.record_config(run.load_config())
    assert run.sources == [first, "another"] and run.identity and run.data
    plain = folders.source(training.Config())
    assert re.fullmatch(r"\S+ \([0-9a-f]{12}\)", plain) and folders.source() == plain
    monkeypatch.syspath_prepend(folder)
    module = folder / "own_part.py"
    parts = "from ide_transformer.dynamics import Transport as Cost\n"
    parts += "from tests.training.mine import Pull as A\n"
    module.write_text(parts)
    importlib.import_module("own_part")
    for override in ("model.operators=[own_part:A]", "training.costs={own_part:Cost: 0.1}"):
        module.write_text(parts)
        before = folders.source(config(override))
        assert before.startswith(f"{plain}, own_part (")
        module.write_text(f"{parts}two = 2\n")
        assert folders.source(config(override)) != before
