"""A user's classes in a file outside of the package: trained, resumed, sampled, evaluated on
other meshes, and compared by the scripts."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from running import logged, run_here
from training import stub, test_build


INSIDE = {"operator": {"kind": "mine:Pull", "options": {"strength": 0.5}}}
TREE = json.loads(json.dumps(test_build.OWN).replace("training.mine", "mine"))
TREE["data"] = {"name": "text", "path": "digits.txt", "tokenizer": "characters"}
TREE["model"]["operators"] = ["feed_forward", {"kind": "mine:Twice", "options": INSIDE}]
OWN = stub.tree(**TREE, name="own")


@pytest.mark.heavy
def test_from_a_file_through_the_scripts(tmp_path, capsys, monkeypatch):
    shutil.copy(Path(__file__).with_name("mine.py"), tmp_path)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(OWN))
    (tmp_path / "digits.txt").write_text("0123456789" * 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    run_here(capsys, "train.py", "own.yaml")
    whole = logged(tmp_path / "runs/own")
    # Two layers, of two evaluations each.
    assert all(line["field_evaluations"] == 4 for line in whole if "loss" in line)
    shutil.rmtree(tmp_path / "runs/own/checkpoints/4")
    run_here(capsys, "train.py", "own.yaml", "--resume")
    assert logged(tmp_path / "runs/own") == whole

    of_run = ("runs/own", "--trust")
    assert run_here(capsys, "sample.py", *of_run, "--prompt", "123", "--length", 5).startswith(
        "123"
    )
    measured = run_here(
        capsys, "evaluate.py", *of_run, "--mesh", "intervals=1,4", "--samples", 4
    )
    assert "intervals" in measured and "nan" not in measured
    comparison = {
        **{"mode": "train", "base": "own.yaml", "budget": {"unit": "steps", "amount": 2}},
        "schemes": {
            "own": {"solver": {"kind": "mine:MyHeun", "options": {"second": 0.75}}},
            "constrained": {
                "model": {"constraint": "mine:Ball", "operators": ["mine:Pull"]},
                "solver": {"kind": "lie_trotter", "sub_solver": "euler"},
            },
        },
    }
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(comparison))
    run_here(capsys, "compare.py", "compare.yaml", "--runs", "compared")
    report = json.loads((tmp_path / "compared/compare/report.json").read_text())
    assert {row["scheme"] for row in report["rows"]} == {"own", "constrained"}
