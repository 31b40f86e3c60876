"""Runs that the version before wrote: see tests/golden/runs/README.md."""

import json
import shutil

import jax
import numpy as np
import pytest
import yaml
from helpers import GOLDEN
from running import logged

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training.versions import VERSION, upgraded


RUNS = GOLDEN / "runs"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """The golden runs, in the current folder; they were made in float32."""
    shutil.copytree(RUNS, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    with jax.enable_x64(False):
        yield tmp_path / "runs"


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["language", "images"])
def test_a_run_of_the_version_before_is_loaded(copied, name):
    model, run = training.load_run(copied / name)
    stored = np.load(copied / f"{name}.npz")
    assert np.abs(np.asarray(model(stored["inputs"])) - stored["logits"]).max() < 1e-5
    config = run.load_config()
    assert config.version == VERSION and config.training.gradient.kind == "recompute"


@pytest.mark.heavy
def test_a_run_of_the_version_before_is_resumed(copied):
    """One on a text: images have held out a part of their training set since."""
    folder = copied / "language"
    before, summary = logged(folder), json.loads((folder / "summary.json").read_text())
    shutil.rmtree(folder / "checkpoints/8")
    # The default of that version, which has changed since.
    kept = ["optimizer.final_learning_rate=1.0e-4"]
    config = training.load_config(copied / "language.yaml", kept)
    training.train(config, runs=copied, resume=True)
    *after, last = logged(folder)
    # Evaluations at the last step are new.
    assert last["step"] == 8 and "loss" not in last
    assert after[:5] == before[:5] and len(after) == len(before)
    for new, old in zip(after, before, strict=True):
        assert new.keys() >= old.keys()
        assert all(new[key] == pytest.approx(old[key], rel=1e-4, abs=1e-6) for key in old)
    again = json.loads((folder / "summary.json").read_text())
    assert again.keys() >= summary.keys()
    for key in summary.keys() - {"seconds"}:
        assert again[key] == pytest.approx(summary[key], rel=1e-4)


def test_words_of_the_version_before():
    old = {
        "model": {
            "operators": ["injected_attention", "feed_forward"],
            "normalization": "none",
            "activation": "swiglu",
            "positions": "learned",
        },
        "solver": {"kind": "nesterov", "options": {"normalization": "rmsnorm"}},
        "training": {"gradient": {"kind": "checkpoint", "options": {}}},
    }
    assert upgraded(old) == {
        "version": VERSION,
        "model": {
            "operators": ["sourced_attention", "gated_feed_forward"],
            "normalization": "free",
            "activation": "silu",
            "positions": "no_positions",
        },
        "solver": {"kind": "nesterov", "options": {"normalization": "rms_norm"}},
        "training": {"gradient": {"kind": "recompute", "options": {}}},
    }
    assert upgraded(upgraded(old)) == upgraded(old)
    # What is of this version is left alone.
    assert upgraded({**old, "version": VERSION}) == {**old, "version": VERSION}


def test_values_that_a_run_wrote_where_none_was_given():
    defaults = {"tokenizer": "characters", "vocabulary": 512, "validation": 0.1, "test": 0.0}
    old = {"version": 2, "data": {"name": "p_hop", **defaults, "test": 0.2}}
    assert upgraded(old)["data"] == {"name": "p_hop", "test": 0.2}
    # A configuration that somebody wrote means what it says.
    assert upgraded({"data": {"validation": 0.1}})["data"] == {"validation": 0.1}


def test_a_version_from_the_future_is_refused(tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(RUNS / "images", folder)
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({"version": 4, **tree}))
    with pytest.raises(
        ide.InputError, match=r"version=4: this release .* reads versions up to 3"
    ):
        training.load_run(folder)
