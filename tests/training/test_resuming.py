"""Runs that are resumed, and refusals, which leave the run as it was."""

import json
import resource
import shutil
import signal
from pathlib import Path

import pytest
from running import logged, run_here
from training.conftest import RUN, config, contents, equal

from ide_transformer import InputError, tasks, training
from ide_transformer.training import loading, stopping


def resume(*overrides):
    return training.train(config(*overrides), runs=RUN.parent, resume=True)


def edited(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def removed(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def emptied(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


TEXT, CONFIG, CHECKPOINTS = Path("text.txt"), RUN / "config.yaml", RUN / "checkpoints"
DAMAGES = {
    "its data changed since": (TEXT, edited(lambda text: text.replace(b"wide", b"cold"))),
    "its tokenizer and its data changed since": (TEXT, edited(lambda text: text + b"!")),
    "its config.yaml changed since": (CONFIG, edited(lambda text: text + b"# a note\n")),
    "has no version: it was written before the first release": (
        CONFIG,
        edited(lambda text: text.replace(b"version: 1\n", b"")),
    ),
    "metrics.jsonl, line 1: not a line of a log": (
        RUN / "metrics.jsonl",
        edited(lambda text: b"\xff\xfe\x00\n" + text),
    ),
    r"text\.txt: there is no such file": (TEXT, removed),
    "fingerprints.json is missing": (RUN / "fingerprints.json", removed),
    "has lost its folder checkpoints": (CHECKPOINTS, removed),
    r"no checkpoint that can be read: .*/2 is damaged: ": (CHECKPOINTS, emptied),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_refusal_leaves_the_run_as_it_was(half, message):
    path, damage = DAMAGES[message]
    damage(path)
    before = contents(half)
    with pytest.raises(InputError, match=message):
        resume()
    assert contents(half) == before


def test_a_run_goes_on_by_its_name_and_a_finished_one_is_left_alone(half, end, capsys):
    """A line that a kill cut short is made again; what is logged and kept may change."""
    run = training.RunFolder(RUN)
    lines = [line | {"seconds": 1e4 * line["step"]} for line in logged(RUN)]
    slower = "".join(json.dumps(line) + "\n" for line in lines)
    run.metrics.write_text(slower + '{"step": 5, "lo')
    with run.sole_use(), pytest.raises(InputError, match="another process is training"):
        resume()
    with pytest.raises(InputError, match=r"training.seed: 0 there, 5 here"):
        resume("training.seed=5")
    again = "train.py", "small", "--resume"
    output = run_here(capsys, *again, "training.seed=5", expected=2)
    assert "training.seed: " in output and "training.steps, training.trackers and" in output
    output = run_here(capsys, *again, "training.log_every=4")
    assert "small: going on from step 2; steps 3 to 4 are made again" in output
    assert [x["step"] for x in logged(RUN) if "loss" in x] == [1, 2, 4]
    assert equal(training.load_run(RUN)[0], end)
    assert run.load_config().training.log_every == 4
    # The time of all starts, also that after the checkpoint of step 2.
    summary = run.load_summary()
    assert summary["steps"] == 4 and 4e4 < summary["seconds"] < 5e4
    before = contents(half)
    assert resume().path == RUN and contents(half) == before
    said = run_here(capsys, "train.py", "large", "--resume", expected=2)
    assert "no run large in runs" in said


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_run_without_a_checkpoint_begins_again(half, end, capsys, monkeypatch):
    shutil.rmtree(CHECKPOINTS)
    CHECKPOINTS.mkdir()
    with pytest.raises(InputError, match=r"small has no checkpoint yet: .*_every=2 steps"):
        training.load_run(RUN)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.run.Loop, "run", interrupted)
        training.train(config(), runs=RUN.parent)
    beside = "small is not finished (step 0 of 4), and --resume would go on with it; this is a"
    assert beside in (said := capsys.readouterr().out) and "new run, runs/small-2" in said
    shutil.rmtree("runs/small-2")
    assert resume().path == RUN
    assert "no checkpoint yet: it begins again at step 0" in capsys.readouterr().out
    assert equal(training.load_run(RUN)[0], end)


def test_a_cosine_begins_again_at_its_rate_on_request(there, capsys, monkeypatch):
    """A kill before the configuration is written leaves the run as it was."""
    longer = "train.py", "small", "--resume", "training.steps=8"
    output = run_here(capsys, *longer, expected=2)
    assert "step 3 on at other learning rates" in output and "from 0.001, its rate" in output
    replace = Path.replace

    def killed(self, target):
        return interrupted() if target.name == "config.yaml" else replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        training.resume_run(RUN, ["training.steps=8"], restart=True)
    assert resume().load_summary()["steps"] == 4
    run_here(capsys, *longer, "--restart")
    run = training.RunFolder(RUN)
    assert run.load_config().optimizer.restarts == {4: 4} and run.load_summary()["steps"] == 8
    # Also by the configuration with which it began, it would go on so.
    again = loading.configuration_of(run, config("training.steps=8"), restart=False)
    assert again.optimizer.restarts == {4: 4}


@pytest.mark.parametrize(
    ("schedule", "overrides", "message"),
    [
        ("constant", "training.steps=8 --restart", "rates of a run of training.steps=8; drop"),
        ("constant", "training.steps=3", "4 there, 3 here.* as many training.steps"),
        ("constant", "training.steps=8 model.std=0.1", "model.std: .* only"),
        (
            *("warmup_stable_decay optimizer.decay=0.6", "training.steps=8 --restart"),
            r"step 4 on .*decay\). Start a new",
        ),
    ],
)
def test_a_run_that_cannot_be_made_longer_is_left_alone(there, schedule, overrides, message):
    own = config(*f"optimizer.schedule={schedule}".split())
    CONFIG.write_text(training.dump_config(own))
    before, given = contents(there), overrides.split()
    restart = "--restart" in given
    with pytest.raises(InputError, match=message):
        training.resume_run(RUN, [x for x in given if "=" in x], restart=restart)
    assert contents(there) == before


def test_a_run_that_is_asked_to_stop_saves_a_checkpoint_and_goes_on(there, end, monkeypatch):
    batch, asked = tasks.LanguageTask.part_of_batch, []

    def ask(self, step, *arguments):
        if step == 2 and not asked:
            asked.append(signal.raise_signal(signal.SIGTERM))
        return batch(self, step, *arguments)

    monkeypatch.setattr(tasks.LanguageTask, "part_of_batch", ask)
    monkeypatch.setattr(stopping, "_GRACE", 600.0)  # or a busy machine loses this process
    with pytest.raises(training.Stopped, match=r"Stopped after step \d; go on with --resume"):
        training.train(config(), runs=Path("again"))
    run = training.train(config(), runs=Path("again"), resume=True)
    assert asked and logged(run.path) == logged(RUN)
    assert equal(training.load_run(run.path)[0], end)


@pytest.mark.heavy
def test_what_cannot_be_written_is_said_and_the_run_goes_on_later(half, end, monkeypatch):
    load, allowed = tasks.LanguageTask.part_of_batch, resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit, error, message in [
        (2000, InputError, r"checkpoint could not be written: .* Intact: 2"),
        (10, OSError, r"File too large.*metrics\.jsonl"),
    ]:

        def load_and_limit(self, step, *arguments, limit=limit):
            if step == 3:  # from there on, no file can be larger
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, allowed[1]))
            return load(self, step, *arguments)

        with monkeypatch.context() as patch, pytest.raises(error, match=message):
            patch.setattr(tasks.LanguageTask, "part_of_batch", load_and_limit)
            try:
                resume()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
    assert equal(training.load_run(resume().path)[0], end)
