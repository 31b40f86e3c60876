"""A user's classes in a file outside of the package: trained, resumed, sampled and evaluated on
other meshes by the scripts."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from running import logged, run_here
from training import stub


INSIDE = {"operator": {"kind": "mine:Pull", "options": {"strength": 0.5}}}
OWN = stub.tree(
    name="own",
    data={"name": "text", "path": "digits.txt", "tokenizer": "characters"},
    model={
        "kind": "model",
        "options": {"inputs": "mine:Letters", "read_out": "mine:Doubled"},
        "operators": ["feed_forward", {"kind": "mine:Twice", "options": INSIDE}],
    },
    solver={"kind": "lie_trotter", "sub_solver": "mine:MyHeun"},
)


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
    of_run = "runs/own", "--trust"
    written = run_here(capsys, "sample.py", *of_run, "--prompt", "123", "--length", 5)
    assert written.startswith("123")
    mesh = "--mesh", "intervals=1,4", "--samples", 4
    measured = run_here(capsys, "evaluate.py", *of_run, *mesh)
    assert "intervals" in measured and "nan" not in measured
