"""Runs from end to end through the scripts, killed and resumed, and what stops them."""

import json
import os
import re
import shutil
import sys

import pytest
from helpers import ROOT, SCRIPTS
from running import run_apart, run_here

from ide_transformer import InputError, Mesh, load_model, load_run
from ide_transformer.training import Config, evaluate_on_meshes, evaluation_task
from ide_transformer.training.folder import new_folder


TINY = [
    *("model.width=16", "model.heads=2", "model.depth=2", "model.context=16"),
    *("optimizer.warmup=5", "training.batch_size=4", "training.sample=20"),
    *("training.log_every=5", "training.evaluate_every=20", "training.evaluate_samples=16"),
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "text.txt"
    path.write_text("The quick brown fox jumps over the lazy dog; who knows why?\n" * 60)
    return path


def arguments(text, runs, *overrides):
    given = [*TINY, "data.name=text", f"data.path={text}", "name=tiny", *overrides]
    # The last one of each key.
    given = {override.split("=")[0]: override for override in given}
    return [ROOT / "configs/quick.yaml", *given.values(), "--runs", runs]


def command(*arguments):
    return [sys.executable, str(SCRIPTS / "train.py"), *map(str, arguments)]


LENGTH = ["training.steps=60", "training.checkpoint_every=20", "model.dropout=0.1"]


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """A run that was never stopped."""
    runs = tmp_path_factory.mktemp("runs")
    done = run_apart(command(*arguments(text, runs, *LENGTH)))
    output = done.stdout + done.stderr
    return runs / "tiny", output


def test_a_run_writes_its_folder(finished):
    folder, output = finished
    for name in (
        *("config.yaml", "metrics.jsonl", "summary.json", "sample.txt", "tokenizer.json"),
        *("plots/loss.png", "plots/state_norm.png", "checkpoints/60"),
    ):
        assert (folder / name).exists(), name
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 60 and summary["nfe"] == 2.0
    assert 0 < summary["validation_loss"] < 4
    # 28 characters and 16 positions of width 16; in each of 2 layers 4 + 8 matrices of 16
    # by 16 and 2 gains; the last gain.
    characters = len(set("The quick brown fox jumps over the lazy dog; who knows why?\n"))
    expected = (characters + 16) * 16 + 2 * (12 * 16 * 16 + 2 * 16) + 16
    assert summary["parameters"] == expected
    assert "validation_loss" in output and "s left" in output


def test_the_log_has_what_others_rely_on(finished):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(5, 61, 5))
    for key in ("gradient_norm", "parameter_norm", "update_norm", "tokens_per_second"):
        assert all(line[key] > 0 for line in training)
    assert all(line["field_evaluations"] == 2 for line in training)
    assert [line["step"] for line in lines if "validation_loss" in line] == [20, 40, 60]
    assert training[-1]["loss"] < training[0]["loss"]


def test_a_second_run_leaves_the_first_alone(tmp_path):
    folder = new_folder(Config(name="tiny"), tmp_path, lambda path: None)
    folder.summary.write_text("{}")
    assert new_folder(Config(name="tiny"), tmp_path, lambda path: None).path.name == "tiny-2"
    assert folder.summary.read_text() == "{}"


def test_sampling_from_a_run(finished, capsys):
    folder, _ = finished
    script = ["sample.py", folder, "--length", 12, "--seed", 3, "--prompt"]
    text = run_here(capsys, *script, "The quick")
    assert text.startswith("The quick") and "tokens per second" in text
    assert text.splitlines()[0] == run_here(capsys, *script, "The quick").splitlines()[0]
    assert "character 'Ж' does not occur" in run_here(capsys, *script, "Ж", expected=2)
    assert "is neither the folder of a run" in run_here(capsys, "sample.py", ROOT, expected=2)
    nearly = folder.with_name("tinny")
    output = run_here(capsys, "sample.py", nearly, expected=2)
    assert f"{nearly}: there is no such run" in output and "holds tiny" in output


def test_files_and_seeds_that_cannot_be_used(finished, text, tmp_path, capsys):
    folder, _ = finished
    output = run_here(capsys, "train.py", *arguments(text, text), expected=2)
    assert output.splitlines()[-1].startswith(f"error: [Errno 20] Not a directory: '{text}")
    output = run_here(capsys, "sample.py", folder, "--seed", 10**20, expected=2)
    assert "--seed 100000000000000000000: give a number from 0" in output
    output = run_here(
        capsys, "train.py", *arguments(text, tmp_path, f"training.seed={10**20}"), expected=2
    )
    assert "training.seed=100000000000000000000: Input should be less than" in output
    shutil.copytree(folder, tmp_path / "damaged")
    (tmp_path / "damaged/tokenizer.json").write_text("{")
    output = run_here(capsys, "sample.py", tmp_path / "damaged", expected=2)
    assert "tokenizer.json is no tokenizer" in output


def test_a_run_is_evaluated_on_windows_of_another_length(finished):
    loaded = load_model(finished[0])
    lengths = [
        next(evaluation_task(loaded, None, n).held_out(1)).inputs.shape[-1] for n in (8, 5)
    ]
    assert lengths == [8, 5]
    with pytest.raises(InputError, match="longer than the context of 16"):
        evaluate_on_meshes(loaded, [Mesh(tokens=17)], samples=1)


def test_sizes_below_one_are_refused(finished, capsys):
    output = run_here(capsys, "evaluate.py", finished[0], "--samples", 0, expected=2)
    assert "samples=0: give at least 1" in output


def test_a_run_is_loaded_by_its_path(finished):
    folder, _ = finished
    assert load_run(str(folder))[1].path == load_run(folder)[1].path == folder
    with pytest.raises(InputError, match=r"nope: there is no such run .* holds tiny"):
        load_run(f"{folder.parent}/nope")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dept=3"], "unknown key model.dept"),
        (["model.context=4000"], "longer than the"),
        (["data.path=nowhere.txt"], "no such file"),
        (["solver.rtol=0.1", "solver.atol=0.1"], "LieTrotter has no error estimate"),
        (
            ["optimizer.learning_rate=1e30", "optimizer.clip=1e30", "training.log_every=1"],
            "steps in a row up to step",
        ),
    ],
)
def test_bad_input_ends_with_status_2_and_writes_no_result(
    text, tmp_path, overrides, message, capsys
):
    output = run_here(capsys, "train.py", *arguments(text, tmp_path, *overrides), expected=2)
    assert message in output
    assert not (tmp_path / "tiny/summary.json").exists()
    # Only the run that diverged had begun.
    assert (tmp_path / "tiny").exists() == ("in a row" in message)


def test_resuming_what_is_not_there_or_another(finished, text, tmp_path, capsys):
    resume = ["train.py", "--resume"]
    output = run_here(capsys, *resume, *arguments(text, tmp_path), expected=2)
    assert "start it without --resume" in output
    folder, _ = finished
    other = arguments(text, tmp_path, "training.steps=70", *LENGTH[1:])
    os.symlink(folder, tmp_path / "tiny")
    output = run_here(capsys, *resume, *other, expected=2)
    assert "training.steps: 60 there, 70 here" in output


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_help_has_an_example(script, capsys):
    output = run_here(capsys, script, "--help")
    assert re.search(
        rf"example.*(scripts/{script}|ide-transformer {script[:-3]}) ", output, re.S
    )


@pytest.mark.heavy
def test_images_train(tmp_path, capsys):
    sizes = ["training.steps=40", "optimizer.warmup=5", "model.depth=1", "model.dropout=0.0"]
    run_here(
        capsys,
        *("train.py", ROOT / "configs/digits_vit.yaml", *sizes, "training.batch_size=32"),
        *("--runs", tmp_path),
    )
    summary = json.loads((tmp_path / "digits_vit/summary.json").read_text())
    assert summary["test_accuracy"] > 0.25
