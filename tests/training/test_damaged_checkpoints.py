"""Checkpoints of a run that are damaged: none is read, and the one before is taken."""

import json
import shutil
import warnings

import pytest
from helpers import fast_first
from running import run_here
from training.conftest import RUN, config, equal

from ide_transformer import InputError, training
from ide_transformer.training import checkpoints


CHECKPOINTS = RUN / "checkpoints"


def files_of(checkpoint):
    return [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def swap(path):
    """Exchanges a file of the newest checkpoint with that of the one before."""
    other = CHECKPOINTS / "2" / path.relative_to(CHECKPOINTS / "4")
    if other.exists():
        content = other.read_bytes()
        other.write_bytes(path.read_bytes())
        path.write_bytes(content)
    else:
        path.unlink()


ATTACKS = {
    "flipped": lambda path: flip(path, 0.5),
    "exchanged": swap,
    "flipped at the end": lambda path: flip(path, 0.97),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "deleted": lambda path: path.unlink(),
}


# Reading stops in the middle, and the thread that reads finds no loop any more.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("attack", fast_first(1, ATTACKS, heavy=1))
def test_no_damaged_file_of_a_checkpoint_is_read(there, end, attack):
    """Each file of the newest checkpoint in turn: the weights are those of the end, or those
    of the checkpoint before, with a warning that names the damaged one."""
    shutil.copytree(CHECKPOINTS, "intact")
    for path in files_of(CHECKPOINTS / "4"):
        ATTACKS[attack](path)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                model, _ = training.load_run(RUN)
            except InputError as error:  # both are damaged
                assert attack == "exchanged" and "/4 is" in str(error) and "/2 is" in str(error)
            else:
                damaged = any("checkpoint 2 is taken instead" in str(w.message) for w in said)
                assert equal(model, end) != damaged, path
        shutil.rmtree(CHECKPOINTS)
        shutil.copytree("intact", CHECKPOINTS)


def test_a_checkpoint_of_another_step_run_or_release_is_not_read(there, capsys, monkeypatch):
    (CHECKPOINTS / "2").rename(CHECKPOINTS / "6")
    with pytest.warns(UserWarning, match="6 is damaged: holds the state of step 2"):
        training.load_run(RUN)
    (CHECKPOINTS / "6").rename(CHECKPOINTS / "2")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "_FORMAT", 3)
        with pytest.raises(InputError, match="4 is damaged: was written by another release"):
            training.load_run(RUN)
    known = json.loads((RUN / "fingerprints.json").read_text())
    (RUN / "fingerprints.json").write_text(json.dumps({**known, "run": "another"}))
    output = run_here(capsys, "convert.py", RUN, "written", expected=2)
    assert "checkpoints/4 is damaged: belongs to another run" in output


def test_scripts_name_a_damaged_checkpoint_and_take_the_one_before(there, capsys):
    evaluate = "evaluate.py", RUN, "--samples", 1
    expected = run_here(capsys, *evaluate, "--checkpoint", 2)
    shutil.rmtree(CHECKPOINTS / "4/default")
    with pytest.warns(UserWarning, match="checkpoint 2 is taken instead"):
        assert run_here(capsys, *evaluate) == expected
    output = run_here(capsys, *evaluate, "--checkpoint", 3, expected=2)
    assert "there is no checkpoint 3; the run has 2, 4" in output


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(there, end):
    shutil.rmtree(CHECKPOINTS / "4")
    for step in ("4", "999"):
        (CHECKPOINTS / step).mkdir()
    with pytest.warns(UserWarning, match="checkpoint 2 is taken instead"):
        training.train(config(), runs=RUN.parent, resume=True)
    assert equal(training.load_run(RUN)[0], end)
    assert len(list((RUN / "checkpoints-damaged").iterdir())) == 2
