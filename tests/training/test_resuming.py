"""Runs that are resumed: refusals, which leave the run as it was, and damaged checkpoints."""

import json
import resource
import shutil
import threading
import warnings

import equinox as eqx
import pytest
from helpers import fast_first
from running import run_here

from ide_transformer import InputError, tasks, training
from ide_transformer.training import folder as folders


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


def config(text, steps=4):
    return training.Config.model_validate(
        {
            "name": "small",
            "data": {"name": "text", "path": str(text)},
            "model": {"width": 16, "heads": 2, "depth": 1, "context": 8},
            "optimizer": {"warmup": 1},
            "training": {
                "steps": steps,
                "batch_size": 4,
                "log_every": 1,
                "checkpoint_every": 2,
                "sample": 0,
            },
        }
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with two checkpoints, and the weights at the end."""
    there = tmp_path_factory.mktemp("whole")
    (there / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        run = training.train(config(there / "text.txt"), runs=there / "runs")
    run.summary.unlink()
    return there, training.load_run(run.path)[0]


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


def contents(there):
    return {p: p.read_bytes() for p in sorted(there.rglob("*")) if p.is_file()}


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
        (damage_checkpoints, "has lost its folder checkpoints"),
    ],
)
def test_a_refusal_leaves_the_run_as_it_was(there, damage, message):
    damage(there)
    before = contents(there)
    with pytest.raises(InputError, match=message):
        resume(there)
    assert contents(there) == before


def test_a_run_goes_on_and_a_finished_one_is_left_alone(there):
    run = resume(there)
    assert json.loads(run.summary.read_text())["steps"] == 4
    before = contents(there)
    assert resume(there).path == run.path
    assert contents(there) == before


def test_a_run_that_is_being_trained_is_refused(there):
    run = folders.RunFolder(there / "runs/small")
    with folders.sole_use(run), pytest.raises(InputError, match="another process is training"):
        resume(there)
    resume(there)


@pytest.mark.parametrize("name", ["small", "runs/small"])
def test_a_run_goes_on_by_its_name_or_folder(there, monkeypatch, name, capsys):
    monkeypatch.chdir(there)
    output = run_here(capsys, "train.py", name, "--resume", "training.steps=5", expected=2)
    assert "training.steps=5: " in output and "drop the overrides" in output
    assert "validation_loss" in run_here(capsys, "train.py", name, "--resume")
    assert "no run runs/large" in run_here(capsys, "train.py", "large", "--resume", expected=2)


def full(there, monkeypatch, at, limit):
    """From that step on, no file can be larger than `limit` bytes."""
    batch, allowed = tasks.LanguageTask.batch, resource.getrlimit(resource.RLIMIT_FSIZE)

    def batch_and_limit(self, step, size, seed):
        if step == at:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, allowed[1]))
        return batch(self, step, size, seed)

    monkeypatch.setattr(tasks.LanguageTask, "batch", batch_and_limit)
    try:
        resume(there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, allowed)
        monkeypatch.setattr(tasks.LanguageTask, "batch", batch)


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


def files_of(checkpoint):
    return [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


ATTACKS = {
    "flipped": lambda path: flip(path, 0.5),
    "flipped at the end": lambda path: flip(path, 0.97),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("attack", fast_first(1, ATTACKS, heavy=1))
def test_no_damaged_file_of_a_checkpoint_is_read(whole, tmp_path, attack):
    """Each file of the newest checkpoint in turn: the weights are those of the end, or those
    of the checkpoint before, with a warning that names the damaged one."""
    there, end = whole
    newest = there / "runs/small/checkpoints/4"
    for number, path in enumerate(files_of(newest)):
        copy = tmp_path / str(number)
        shutil.copytree(there / "runs/small", copy)
        ATTACKS[attack](copy / path.relative_to(there / "runs/small"))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            model, _ = training.load_run(copy)
        damaged = any("checkpoint 2 is taken instead" in str(w.message) for w in said)
        assert eqx.tree_equal(model, end) != damaged, path


def swap(one, other, aside):
    one.rename(aside)
    if other.exists():
        other.rename(one)
    aside.rename(other)


@pytest.mark.heavy
def test_no_file_of_another_checkpoint_is_read(whole, tmp_path):
    """Each file of the newest checkpoint in turn is exchanged with that of the one before."""
    there, end = whole
    checkpoints = there / "runs/small/checkpoints"
    names = [path.relative_to(checkpoints / "4") for path in files_of(checkpoints / "4")]
    for number, name in enumerate([".", *names]):
        copy = tmp_path / str(number)
        shutil.copytree(there / "runs/small", copy)
        inside = copy / "checkpoints"
        swap(inside / "4" / name, inside / "2" / name, copy / "aside")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                found = eqx.tree_equal(training.load_run(copy)[0], end)
            except InputError as error:
                assert "/4: " in str(error) and "/2: " in str(error)
            else:
                damaged = any("checkpoint 2 is taken instead" in str(w.message) for w in said)
                assert found != damaged, name


def test_a_checkpoint_of_another_run_is_not_read(whole, tmp_path, capsys):
    there, _ = whole
    copy = tmp_path / "small"
    shutil.copytree(there / "runs/small", copy)
    known = json.loads((copy / "fingerprints.json").read_text())
    (copy / "fingerprints.json").write_text(json.dumps({**known, "run": "another"}))
    for script in ("sample.py", "evaluate.py", "convert.py"):
        output = run_here(capsys, script, copy, *[copy] * (script == "convert.py"), expected=2)
        assert "checkpoints/4: ValueError: belongs to another run" in output


def test_scripts_name_a_damaged_checkpoint_and_take_the_one_before(whole, tmp_path, capsys):
    there, _ = whole
    copy = tmp_path / "small"
    shutil.copytree(there / "runs/small", copy)
    shutil.rmtree(copy / "checkpoints/4/default")
    short = ("--prompt", "the", "--length", 3)
    expected = run_here(capsys, "sample.py", copy, *short, "--checkpoint", 2).splitlines()[0]
    for script in (("sample.py", copy, *short), ("evaluate.py", copy, "--samples", 1)):
        with pytest.warns(UserWarning, match="checkpoint 2 is taken instead"):
            output = run_here(capsys, *script)
        assert expected in output or "loss: " in output
    assert "there is no checkpoint 3; the run has 2, 4" in run_here(
        capsys, "sample.py", copy, "--checkpoint", 3, expected=2
    )


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    there, end = whole
    runs = tmp_path / "runs"
    shutil.copytree(there / "runs", runs)
    shutil.rmtree(runs / "small/checkpoints/4")
    (runs / "small/checkpoints/4").mkdir()
    (runs / "small/checkpoints/999").mkdir()
    with pytest.warns(UserWarning, match="checkpoint 2 is taken instead"):
        run = training.train(config(there / "text.txt"), runs=runs, resume=True)
    assert eqx.tree_equal(training.load_run(run.path)[0], end)
    assert len(list((run.path / "checkpoints-damaged").iterdir())) == 2


def test_without_an_intact_checkpoint_nothing_starts(whole, tmp_path):
    there, _ = whole
    runs = tmp_path / "runs"
    shutil.copytree(there / "runs", runs)
    for step in ("2", "4"):
        for path in files_of(runs / "small/checkpoints" / step):
            path.write_bytes(b"")
    before = contents(runs)
    with pytest.raises(InputError, match=r"no checkpoint that can be read; .*/4: .*; .*/2: "):
        training.train(config(there / "text.txt"), runs=runs, resume=True)
    assert contents(runs) == before
