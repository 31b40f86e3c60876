"""Runs that are resumed, and refusals, which leave the run as it was."""

import json
import resource
import shutil
import threading

import equinox as eqx
import pytest
from running import run_here
from training.small_run import TEXT, config, contents

from ide_transformer import InputError, tasks, training
from ide_transformer.training import folder as folders


@pytest.fixture
def there(whole, tmp_path, monkeypatch):
    """The run without its last checkpoint, as after a kill, at another place."""
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    origin, _ = whole
    shutil.copytree(origin, tmp_path, dirs_exist_ok=True)
    run = folders.RunFolder(tmp_path / "runs/small")
    shutil.rmtree(run.checkpoints / "4")
    # The path of the text is part of the configuration.
    run.config.write_text(run.config.read_text().replace(str(origin), str(tmp_path)))
    known = json.loads(run.fingerprints.read_text())
    known["its config.yaml"] = folders.checksum(run.config)
    run.fingerprints.write_text(json.dumps(known))
    return tmp_path


def resume(there):
    return training.train(config(there / "text.txt"), runs=there / "runs", resume=True)


def damage_text(there):
    (there / "text.txt").write_text(TEXT.replace("wide", "cold"))


def damage_letters(there):
    (there / "text.txt").write_text(TEXT + "!")


def damage_config(there):
    path = there / "runs/small/config.yaml"
    path.write_text(path.read_text() + "# a note\n")


def damage_log(there):
    path = there / "runs/small/metrics.jsonl"
    path.write_text("no log\n" + path.read_text())


def damage_log_by_bytes(there):
    (there / "runs/small/metrics.jsonl").write_bytes(b"\xff\xfe\x00\n")


def damage_text_file(there):
    (there / "text.txt").unlink()


def lose_fingerprints(there):
    (there / "runs/small/fingerprints.json").unlink()


def damage_checkpoints(there):
    shutil.rmtree(there / "runs/small/checkpoints")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_text, "its data changed since"),
        (damage_letters, "its tokenizer and its data changed since"),
        (damage_config, "its config.yaml changed since"),
        (damage_log, "metrics.jsonl, line 1: no line of a log"),
        (damage_log_by_bytes, "metrics.jsonl, line 1: no line of a log"),
        (damage_text_file, r"text\.txt: there is no such file"),
        (lose_fingerprints, "fingerprints.json is missing"),
        (damage_checkpoints, "has lost its folder checkpoints"),
    ],
)
def test_a_refusal_leaves_the_run_as_it_was(there, damage, message):
    damage(there)
    before = contents(there)
    with pytest.raises(InputError, match=message):
        resume(there)
    assert contents(there) == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "has no version: it was written before the first release"),
        ("version: 3\n", r"version=3: this release of .* reads version 1; train it again"),
    ],
)
def test_a_run_of_another_release_is_refused(there, line, message):
    path = there / "runs/small/config.yaml"
    path.write_text(path.read_text().replace("version: 1\n", line, 1))
    for read in (training.load_run, training.resume_run):
        with pytest.raises(InputError, match=message):
            read(path.parent)


def test_a_run_goes_on_and_a_finished_one_is_left_alone(there):
    run = resume(there)
    assert json.loads(run.summary.read_text())["steps"] == 4
    before = contents(there)
    assert resume(there).path == run.path
    assert contents(there) == before


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_starts(there):
    log = there / "runs/small/metrics.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    until = [line["seconds"] for line in lines if line.get("seconds")]
    assert until and until == sorted(until)
    slower = [line | {"seconds": 1e4 * line["step"]} for line in lines]
    log.write_text("".join(json.dumps(line) + "\n" for line in slower))
    # Also the time after the checkpoint, which is that of step 2.
    assert 4e4 < json.loads(resume(there).summary.read_text())["seconds"] < 5e4


def test_a_run_that_is_being_trained_is_refused(there):
    run = folders.RunFolder(there / "runs/small")
    with run.sole_use(), pytest.raises(InputError, match="another process is training"):
        resume(there)
    resume(there)


@pytest.mark.parametrize("name", ["small", "runs/small"])
def test_a_run_goes_on_by_its_name_or_folder(there, monkeypatch, name, capsys):
    monkeypatch.chdir(there)
    output = run_here(capsys, "train.py", name, "--resume", "training.steps=5", expected=2)
    assert "training.steps=5: " in output and "drop the overrides" in output
    assert "validation_loss" in run_here(capsys, "train.py", name, "--resume")
    assert "no run runs/large" in run_here(capsys, "train.py", "large", "--resume", expected=2)


def test_a_run_of_another_name_with_a_number_is_another_run(there):
    runs = there / "runs"
    shutil.copytree(runs / "small", runs / "small-8")
    other = runs / "small-8/config.yaml"
    other.write_text(other.read_text().replace("name: small\n", "name: small-8\n", 1))
    assert folders.newest_folder("small", runs).path == runs / "small"
    assert folders.newest_folder("small-8", runs).path == runs / "small-8"
    shutil.copytree(runs / "small", runs / "small-2")
    assert folders.newest_folder("small", runs).path == runs / "small-2"


def full(there, monkeypatch, at, limit):
    """From that step on, no file can be larger than `limit` bytes."""
    load, allowed = tasks.LanguageTask.part_of_batch, resource.getrlimit(resource.RLIMIT_FSIZE)

    def load_and_limit(self, step, *arguments):
        if step == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, allowed[1]))
        return load(self, step, *arguments)

    monkeypatch.setattr(tasks.LanguageTask, "part_of_batch", load_and_limit)
    try:
        resume(there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
        monkeypatch.setattr(tasks.LanguageTask, "part_of_batch", load)


@pytest.mark.heavy
def test_what_cannot_be_written_is_said_and_the_run_goes_on_later(there, whole, monkeypatch):
    with pytest.raises(InputError, match=r"checkpoint could not be written: .* Intact: 2"):
        full(there, monkeypatch, at=3, limit=2000)
    with pytest.raises(OSError, match=r"File too large.*metrics\.jsonl"):
        full(there, monkeypatch, at=3, limit=10)
    run = resume(there)
    assert eqx.tree_equal(training.load_run(run.path)[0], whole[1])


def test_an_incomplete_last_line_is_dropped(there):
    log = there / "runs/small/metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 5, "lo')
    lines = training.read_metrics(resume(there).metrics)
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]


def test_runs_that_start_at_once_have_folders_of_their_own(tmp_path):
    found, start = [], threading.Barrier(8)

    def no_tokenizer(path):
        pass

    def begin():
        start.wait()
        found.append(
            folders.new_folder(training.Config(name="same"), tmp_path, no_tokenizer).path.name
        )

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 8
