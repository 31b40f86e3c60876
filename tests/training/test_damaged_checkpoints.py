"""Checkpoints of a run that are damaged: none is read, and the one before is taken."""

import json
import shutil
import warnings

import equinox as eqx
import pytest
from helpers import fast_first
from running import run_here
from training.small_run import config, contents

from ide_transformer import InputError, training
from ide_transformer.training import checkpoints


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


# Reading stops in the middle, and the thread that reads finds no loop any more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("attack", fast_first(1, ATTACKS, heavy=0))
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


def test_a_checkpoint_of_another_release_is_not_read(whole, monkeypatch):
    there, _ = whole
    monkeypatch.setattr(checkpoints, "_FORMAT", 3)
    with pytest.raises(InputError, match="4: ValueError: was written by another release"):
        training.load_run(there / "runs/small")


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
