"""Runs that are resumed, and refusals, which leave the run as it was."""

import json
import resource
import shutil
import signal
from pathlib import Path

import equinox as eqx
import pytest
from running import logged, run_here
from training import stub
from training.conftest import RUN, config, contents

from ide_transformer import InputError, tasks, training
from ide_transformer.training import stopping


def resume():
    return training.train(config(), runs=RUN.parent, resume=True)


def edited(path, change):
    path.write_bytes(change(path.read_bytes()))


def emptied_checkpoints(there):
    for path in (there / RUN / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


DAMAGES = {
    "its data changed since": lambda there: edited(
        there / "text.txt", lambda text: text.replace(b"wide", b"cold")
    ),
    "its tokenizer and its data changed since": lambda there: edited(
        there / "text.txt", lambda text: text + b"!"
    ),
    "its config.yaml changed since": lambda there: edited(
        there / RUN / "config.yaml", lambda text: text + b"# a note\n"
    ),
    "has no version: it was written before the first release": lambda there: edited(
        there / RUN / "config.yaml", lambda text: text.replace(b"version: 1\n", b"")
    ),
    "metrics.jsonl, line 1: not a line of a log": lambda there: edited(
        there / RUN / "metrics.jsonl", lambda text: b"\xff\xfe\x00\n" + text
    ),
    r"text\.txt: there is no such file": lambda there: (there / "text.txt").unlink(),
    "fingerprints.json is missing": lambda there: (there / RUN / "fingerprints.json").unlink(),
    "has lost its folder checkpoints": lambda there: shutil.rmtree(there / RUN / "checkpoints"),
    r"no checkpoint that can be read: .*/2 is damaged: ": emptied_checkpoints,
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_refusal_leaves_the_run_as_it_was(half, message):
    DAMAGES[message](half)
    before = contents(half)
    with pytest.raises(InputError, match=message):
        resume()
    assert contents(half) == before


def test_a_run_goes_on_and_a_finished_one_is_left_alone(half, end):
    log = half / RUN / "metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    slower = [line | {"seconds": 1e4 * line["step"]} for line in lines]
    written = "".join(json.dumps(line) + "\n" for line in slower)
    log.write_text(written + '{"step": 5, "lo')
    run = resume()
    steps = [line["step"] for line in training.read_metrics(run.metrics) if "loss" in line]
    assert steps == [1, 2, 3, 4]
    assert eqx.tree_equal(training.load_run(run.path)[0], end)
    summary = run.load_summary()
    # The time of all starts, also that after the checkpoint of step 2.
    assert summary["steps"] == 4 and 4e4 < summary["seconds"] < 5e4
    before = contents(half)
    assert resume().path == run.path
    assert contents(half) == before


def test_a_run_goes_on_by_its_name_with_its_own_configuration(half, capsys):
    run = training.RunFolder(RUN)
    with run.sole_use(), pytest.raises(InputError, match="another process is training"):
        resume()
    with pytest.raises(InputError, match=r"training.seed: 0 there, 5 here"):
        training.train(config(training={"seed": 5}), runs=RUN.parent, resume=True)
    again = "train.py", "small", "--resume"
    output = run_here(capsys, *again, "training.seed=5", expected=2)
    assert "training.seed: " in output and "training.steps, training.trackers and" in output
    # What is logged and kept may change.
    assert "validation_loss" in run_here(capsys, *again, "training.log_every=4")
    assert [x["step"] for x in training.read_metrics(run.metrics) if "loss" in x] == [1, 2, 4]
    assert run.load_config().training.log_every == 4
    assert "no run large in runs" in run_here(
        capsys, "train.py", "large", "--resume", expected=2
    )


def test_what_a_start_does_with_a_run_that_is_not_finished_is_said(half, end, capsys):
    resume()
    assert "small: going on from step 2; steps 3 to 4 are made again" in capsys.readouterr().out
    shutil.rmtree(RUN / "checkpoints")
    (RUN / "checkpoints").mkdir()
    (RUN / "summary.json").unlink()
    with pytest.raises(InputError, match=r"small has no checkpoint yet: .*_every=2 steps"):
        training.load_run(RUN)
    training.train(config(), runs=RUN.parent)
    beside = "small is not finished (step 0 of 4), and --resume would go on with it; this is a"
    assert beside in (said := capsys.readouterr().out) and "new run, runs/small-2" in said
    assert resume().path == RUN
    assert "no checkpoint yet: it begins again at step 0" in capsys.readouterr().out
    assert eqx.tree_equal(training.load_run(RUN)[0], end)


def test_a_run_that_is_made_longer_is_the_run_of_that_length(tmp_path):
    """From before its decay on, and with refinements at the same steps."""
    kept = "optimizer.schedule=warmup_stable_decay", "training.keep=9"
    of_ten, of_five = "training.refine={0: 1, 2: 2}", "training.refine={0: 1, 0.4: 2}"
    whole = stub.train(tmp_path / "whole", *kept, of_ten, "training.steps=10")
    short = stub.train(tmp_path, *kept, of_five, "training.steps=5")
    longer = stub.resumed(short, tmp_path / "longer", 3, ["training.steps=10"])
    again = stub.resumed(longer, tmp_path / "again", 5)
    assert again.load_config() == whole.load_config()
    for run in (longer, again):
        assert logged(run.path) == logged(whole.path)
        assert eqx.tree_equal(training.load_run(run.path)[0], training.load_run(whole.path)[0])


def test_a_cosine_begins_again_at_its_rate_on_request(there, capsys, monkeypatch):
    """A kill before the configuration is written leaves the run as it was."""
    longer = "train.py", "small", "--resume", "training.steps=8"
    output = run_here(capsys, *longer, expected=2)
    assert "step 3 on at other learning rates" in output and "from 0.001, its rate" in output
    replace = Path.replace

    def killed(self, target):
        if target.name == "config.yaml":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        training.resume_run(RUN, ["training.steps=8"], restart=True)
    assert resume().load_summary()["steps"] == 4
    run_here(capsys, *longer, "--restart")
    run = training.RunFolder(RUN)
    assert run.load_config().optimizer.restarts == {4: 4} and run.load_summary()["steps"] == 8
    again = stub.resumed(run, there / "again", 6)
    assert eqx.tree_equal(training.load_run(again.path)[0], training.load_run(RUN)[0])


CONSTANT = {
    ("training.steps=8", "--restart"): "rates of a run of training.steps=8; drop it",
    ("training.steps=3",): "4 there, 3 here.* as many training.steps",
    ("training.steps=8", "model.std=0.1"): "model.std: .* only",
}
DECAYING = {("training.steps=8", "--restart"): r"step 4 on .*decay\). Start a new"}


@pytest.mark.parametrize(
    ("schedule", "refused"),
    [("constant", CONSTANT), ("warmup_stable_decay optimizer.decay=0.6", DECAYING)],
)
def test_a_run_that_cannot_be_made_longer_is_left_alone(schedule, refused, tmp_path):
    path = stub.train(tmp_path, *f"optimizer.schedule={schedule}".split()).path
    before = contents(path)
    for (*overrides, last), message in refused.items():
        overrides += [last] * (last != "--restart")
        with pytest.raises(InputError, match=message):
            training.resume_run(path, overrides, restart=last == "--restart")
        assert contents(path) == before


def test_a_run_that_is_asked_to_stop_saves_a_checkpoint_and_goes_on(tmp_path, monkeypatch):
    whole, batch, asked = stub.train(tmp_path / "whole"), stub.Stub.batch, []

    def ask(self, step, size, seed):
        if step == 2 and size == 4 and not asked:
            asked.append(signal.raise_signal(signal.SIGTERM))
        return batch(self, step, size, seed)

    monkeypatch.setattr(stub.Stub, "batch", ask)
    monkeypatch.setattr(stopping, "_GRACE", 600.0)  # or a busy machine loses this process
    with pytest.raises(training.Stopped, match=r"Stopped after step \d; go on with --resume"):
        stub.train(tmp_path)
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    run = training.resume_run(tmp_path / "small")
    assert asked and logged(run.path) == logged(whole.path)
    assert eqx.tree_equal(training.load_run(run.path)[0], training.load_run(whole.path)[0])


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
    assert eqx.tree_equal(training.load_run(resume().path)[0], end)
