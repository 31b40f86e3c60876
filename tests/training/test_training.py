"""Runs of the scripts from end to end, and what stops them."""

import json
import math
import re

import pytest
from helpers import ROOT, SCRIPTS
from running import run_here


TEXT = "The quick brown fox jumps over the lazy dog; who knows why?\n" * 20


@pytest.fixture(scope="module", autouse=True)
def stub_is_known():
    """Not here, where runs draw their figures."""


@pytest.fixture
def train(tmp_path, capsys):
    """The script, on a text; its output."""
    (tmp_path / "text.txt").write_text(TEXT)
    given = {
        **{"name": "tiny", "data.name": "text", "data.path": tmp_path / "text.txt"},
        **{"model.width": 16, "model.depth": 2, "model.context": 16, "model.dropout": 0.1},
        **{"optimizer.warmup": 2, "optimizer.learning_rate": 0.01, "training.steps": 12},
        **{"training.batch_size": 4, "training.log_every": 3, "training.sample": 20},
        **{"training.evaluate_every": 6, "training.evaluate_samples": 16},
    }

    def run(runs, expected=0, **overrides):
        overrides = given | {key.replace("__", "."): x for key, x in overrides.items()}
        words = [f"{key}={value}" for key, value in overrides.items()]
        config = ROOT / "configs/quick.yaml"
        return run_here(capsys, "train.py", config, *words, "--runs", runs, expected=expected)

    return run


def test_a_run_writes_its_folder_and_can_be_sampled_and_evaluated(train, tmp_path, capsys):
    output = train(tmp_path)
    assert "validation_loss" in output and "evaluating the validation" in output
    folder = tmp_path / "tiny"
    for name in (
        *("config.yaml", "metrics.jsonl", "summary.json", "sample.txt", "tokenizer.json"),
        *("plots/loss.png", "plots/state_norm.png", "checkpoints/12"),
    ):
        assert (folder / name).exists(), name
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 12 and summary["nfe"] == 2.0
    assert 0 < summary["validation_loss"] < 4
    # The characters and 16 positions of width 16; in each of 2 layers 4 + 8 matrices of 16 by
    # 16 and 2 gains; the last gain.
    expected = (len(set(TEXT)) + 16) * 16 + 2 * (12 * 16 * 16 + 2 * 16) + 16
    assert summary["parameters"] == expected
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [3, 6, 9, 12]
    for key in ("gradient_norm", "parameter_norm", "update_norm", "tokens_per_second"):
        assert all(line[key] > 0 for line in training)
    assert all(line["field_evaluations"] == 2 for line in training)
    assert [line["step"] for line in lines if "validation_loss" in line] == [6, 12]
    assert training[-1]["loss"] < training[0]["loss"]
    # As long as the sample of the run, so that it is the same program.
    script = ["sample.py", folder, "--length", 20, "--seed", 3, "--prompt"]
    text, given, rate = run_here(capsys, *script, "T").partition("20 tokens in")
    assert text.startswith("T") and len(text) == 22 and given and "tokens per second" in rate
    assert "character 'Ж' does not occur" in run_here(capsys, *script, "Ж", expected=2)
    both = [folder, folder, "--json", tmp_path / "both.json"]
    assert "bits per byte" in run_here(capsys, "evaluate.py", *both)
    rows = json.loads((tmp_path / "both.json").read_text())
    assert rows[0] == rows[1] and rows[0]["model"] == str(folder)
    # A character of this text is a byte.
    bits = summary["validation_loss"] / math.log(2)
    for found in (rows[0]["bits_per_byte"], summary["validation_bits_per_byte"]):
        assert found == pytest.approx(bits, rel=1e-5)
    (folder / "tokenizer.json").write_text("{")
    assert "is not a tokenizer" in run_here(capsys, "sample.py", folder, expected=2)


def test_bad_input_ends_with_status_2_and_writes_no_result(train, tmp_path, capsys):
    assert "no such file" in train(tmp_path / "runs", expected=2, data__path="nowhere.txt")
    assert not (tmp_path / "runs").exists()
    output = train(tmp_path / "text.txt", expected=2)
    assert output.splitlines()[-1].startswith("error: [Errno 20] Not a directory: ")
    output = run_here(capsys, "sample.py", "none", "--seed", 10**20, expected=2)
    assert "--seed 100000000000000000000: give a number from 0" in output
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/config.yaml").touch()
    output = run_here(capsys, "sample.py", tmp_path / "runs/tinny", expected=2)
    assert "tinny: there is no such run" in output and "holds tiny" in output
    assert "is neither the folder of a run" in run_here(capsys, "sample.py", ROOT, expected=2)


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.py")))
def test_help_has_an_example(script, capsys):
    output = run_here(capsys, script, "--help")
    called = rf"(scripts/{script}|ide-transformer {script[:-3]}) "
    assert re.search(f"example.*{called}", output, re.DOTALL)
