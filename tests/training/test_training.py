"""A run from end to end: what is in its folder, and what the scripts make of it."""

import json
import math
from pathlib import Path

import pytest
from helpers import ROOT
from running import run_here
from training import stub
from training.conftest import RUN, TEXT

from ide_transformer import training
from ide_transformer.training.run import plot_run as real_plot_run


def test_a_run_writes_its_folder_and_can_be_sampled_and_evaluated(there, end, capsys):
    summary = json.loads((RUN / "summary.json").read_text())
    assert summary["steps"] == 4 and summary["nfe"] == 2.0
    assert 0 < summary["validation_loss"] < 4
    # The characters and 4 positions of width 4; in each of 2 layers 4 + 8 matrices of 4 by 4
    # and 2 gains; the last gain.
    expected = (len(set(TEXT)) + 4) * 4 + 2 * (12 * 4 * 4 + 2 * 4) + 4
    assert summary["parameters"] == expected
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    for key in ("gradient_norm", "parameter_norm", "update_norm", "tokens_per_second"):
        assert all(line[key] > 0 for line in logged)
    assert all(line["field_evaluations"] == 2 for line in logged)
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    assert logged[-1]["loss"] < logged[0]["loss"]
    run = training.RunFolder(RUN)
    real_plot_run(run, training.run_task(run), end, {"step": 4, "validation_loss": 1.0})
    assert {path.name for path in run.plots.iterdir()} == {"loss.png", "state_norm.png"}

    script = ["sample.py", RUN, "--length", 20, "--seed", 3, "--prompt"]
    text, given, _ = run_here(capsys, *script, "t").partition("20 tokens in")
    assert text.startswith("t") and len(text) == 22 and given
    assert "character 'Ж' does not occur" in run_here(capsys, *script, "Ж", expected=2)
    both = [RUN, RUN, "--json", "both.json"]
    assert "bits per byte" in run_here(capsys, "evaluate.py", *both)
    rows = json.loads(Path("both.json").read_text())
    assert rows[0] == rows[1] and rows[0]["model"] == str(RUN)
    # A character of this text is a byte.
    bits = summary["validation_loss"] / math.log(2)
    for found in (rows[0]["bits_per_byte"], summary["validation_bits_per_byte"]):
        assert found == pytest.approx(bits, rel=1e-5)


def test_bad_input_ends_with_status_2_and_writes_no_result(there, capsys):
    (RUN / "tokenizer.json").write_text("{")
    Path("own.json").write_text(json.dumps(stub.tree(data={"name": "text", "path": "no.txt"})))
    for said, *command in (
        ("is not a tokenizer", "sample.py", RUN),
        ("smal: there is no such run", "sample.py", "runs/smal"),
        ("is neither the folder of a run", "sample.py", ROOT),
        ("no such file", "train.py", "own.json", "--runs", "others"),
    ):
        assert said in run_here(capsys, *command, expected=2)
    assert not Path("others").exists()
