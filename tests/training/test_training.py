"""Runs from end to end through the scripts, killed and resumed, and what stops them."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time

import pytest
from helpers import ROOT


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
    return [
        *(sys.executable, str(ROOT / "scripts/train.py"), str(ROOT / "configs/quick.yaml")),
        *TINY,
        *("data.name=text", f"data.path={text}", "name=tiny", *overrides),
        *("--runs", str(runs)),
    ]


def run(command, expected=0):
    done = finish(command, expected)
    return done.stdout + done.stderr


def finish(command, expected=0):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == expected, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def metrics(folder):
    """The log without the clock's reading, which no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "tokens_per_second"} for line in lines]


LENGTH = ["training.steps=60", "training.checkpoint_every=20", "model.dropout=0.1"]


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """A run that was never stopped."""
    runs = tmp_path_factory.mktemp("runs")
    output = run(arguments(text, runs, *LENGTH))
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
    assert [line["step"] for line in lines if "validation_loss" in line] == [20, 40]
    assert training[-1]["loss"] < training[0]["loss"]


def test_a_killed_run_resumes_to_the_same_bits(finished, text, tmp_path):
    folder, _ = finished
    command = arguments(text, tmp_path, *LENGTH)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    log = tmp_path / "tiny/metrics.jsonl"
    # Killed without warning once there is a checkpoint and something logged after it.
    while process.poll() is None:
        written = log.read_text() if log.exists() else ""
        if '"step": 25' in written and (tmp_path / "tiny/checkpoints/20").exists():
            process.kill()
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL
    run([*command, "--resume"])
    assert metrics(tmp_path / "tiny") == metrics(folder)
    for key in ("validation_loss", "validation_accuracy"):
        one, other = (
            json.loads((f / "summary.json").read_text()) for f in (folder, tmp_path / "tiny")
        )
        assert one[key] == other[key]


def test_an_interrupted_run_saves_and_says_how_to_go_on(finished, text, tmp_path):
    folder, _ = finished
    command = arguments(text, tmp_path, *LENGTH)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    log = tmp_path / "tiny/metrics.jsonl"
    while not (log.exists() and '"step": 10' in log.read_text()):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "go on with --resume" in output and "Traceback" not in output
    run([*command, "--resume"])
    assert metrics(tmp_path / "tiny") == metrics(folder)


def test_a_second_run_leaves_the_first_alone(finished, text):
    folder, _ = finished
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    output = run(arguments(text, folder.parent, "training.steps=10"))
    assert "tiny-2" in output
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_sampling_from_a_run(finished):
    folder, _ = finished
    script = [sys.executable, str(ROOT / "scripts/sample.py"), str(folder)]
    command = [*script, "--prompt", "The quick", "--length", "30", "--seed", "3"]
    done = finish(command)
    text = done.stdout
    assert text.startswith("The quick") and len(text.rstrip("\n")) <= 9 + 30
    assert "tokens per second" in done.stderr
    assert text == finish(command).stdout
    assert "character 'Ж' does not occur" in run([*script, "--prompt", "Ж"], expected=2)
    assert "is neither the folder of a run" in run([*script[:2], str(ROOT)], expected=2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dept=3"], "unknown key model.dept"),
        (["model.context=4000"], "longer than the"),
        (["data.path=nowhere.txt"], "no such file"),
        (["solver.rtol=0.1", "solver.atol=0.1"], "LieTrotter has no error estimate"),
        (
            ["optimizer.learning_rate=1e30", "optimizer.clip=1e30"],
            "The loss became nan by step",
        ),
    ],
)
def test_bad_input_ends_with_status_2_and_writes_no_result(text, tmp_path, overrides, message):
    output = run(arguments(text, tmp_path, *overrides), expected=2)
    assert message in output
    assert not (tmp_path / "tiny/summary.json").exists()
    # Only the run that diverged had begun.
    assert (tmp_path / "tiny").exists() == ("loss became" in message)


def test_resuming_what_is_not_there_or_another(finished, text, tmp_path):
    output = run([*arguments(text, tmp_path), "--resume"], expected=2)
    assert "start it without --resume" in output
    folder, _ = finished
    other = arguments(text, tmp_path, "training.steps=70", *LENGTH[1:])
    os.symlink(folder, tmp_path / "tiny")
    output = run([*other, "--resume"], expected=2)
    assert "training.steps: 60 there, 70 here" in output


@pytest.mark.parametrize("script", sorted(path.name for path in ROOT.glob("scripts/*.py")))
def test_help_has_an_example(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
    output = capsys.readouterr().out
    assert "example" in output and f"python scripts/{script} " in output


def test_images_train(tmp_path):
    command = [
        *(
            sys.executable,
            str(ROOT / "scripts/train.py"),
            str(ROOT / "configs/digits_vit.yaml"),
        ),
        *("training.steps=40", "optimizer.warmup=5", "model.depth=1", "training.batch_size=32"),
        *("--runs", str(tmp_path)),
    ]
    run(command)
    summary = json.loads((tmp_path / "digits_vit/summary.json").read_text())
    assert summary["test_accuracy"] > 0.25
