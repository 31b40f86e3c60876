"""The data and the code of the runs of a comparison."""

import json

import pytest
import yaml
from rich.console import Console
from training.tiny_runs import TEXT, base, configured

from ide_transformer import InputError, training
from ide_transformer.studies.schemes import about_sources, load_comparison
from ide_transformer.studies.schemes.sweep import Trial
from ide_transformer.studies.schemes.trials import Trials
from ide_transformer.training import build_task


OTHER = TEXT.replace("wide", "cold")


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Makes a comparison of one scheme by these seeds; the text of its report."""
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    monkeypatch.setattr(Trials, "_seconds", lambda *_: 1.0)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base(tmp_path)))

    def make(*seeds):
        tree = {
            "mode": "train",
            "base": "base.yaml",
            "seeds": [*seeds],
            "budget": {"unit": "steps", "amount": 3},
            "schemes": {"one": {}},
        }
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree))
        return load_comparison(tmp_path / "small.yaml").compare(tmp_path / "compared").about

    return make


@pytest.mark.heavy
def test_runs_on_other_data_are_refused_and_other_code_is_named(compare, tmp_path):
    runs, text = tmp_path / "compared/small/runs", tmp_path / "text.txt"
    about = compare(0)
    (source,) = training.RunFolder(runs / "one-seed0").sources
    assert f"Code: {source}." in about
    text.write_text(OTHER)
    refusal = r"one-seed0: this run was made with other data \(its data changed since\)"
    with pytest.raises(InputError, match=refusal):
        compare(0)
    with pytest.raises(InputError, match=refusal):
        compare(0, 1)
    assert [x.name for x in runs.iterdir()] == ["one-seed0"]
    text.write_text(TEXT)
    # A run of another version stays, and is told apart.
    file = runs / "one-seed0/fingerprints.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "sources": ["0.0.1 (abc)"]}))
    about = compare(0, 1)
    each = f"0.0.1 (abc): one-seed0; {source}: one-seed1."
    assert f"What is compared was made by different code: {each}" in about


def test_data_that_change_during_a_comparison_end_it(compare, tmp_path, monkeypatch):
    train = training.train

    def changing(*given, **named):
        (tmp_path / "text.txt").write_text(OTHER)
        return train(*given, **named)

    monkeypatch.setattr(training, "train", changing)
    with pytest.raises(InputError, match="one-seed0: this run was made with other data"):
        compare(0)


def test_a_failure_on_other_data_is_refused(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr(training, "train", fail)
    config = configured(tmp_path, [])
    trial = Trial("one", (), 0)

    def trials():
        tasks = {"one": build_task(config)}
        return Trials(tmp_path / "runs", {"one": config}, [], tasks, Console(quiet=True))

    assert trials().loss(trial) == float("inf") and trials().done(trial)
    (tmp_path / "text.txt").write_text(OTHER)
    with pytest.raises(InputError, match=r"failed\.json: this run was made with other data"):
        trials().done(trial)


def test_different_code_is_named():
    assert about_sources({"a": ["one"]}) == "Code: a."
    assert about_sources({"a": ["one", "two"], "b": ["three"]}).endswith(
        "a: one, two; b: three."
    )


@pytest.mark.heavy
def test_solves_of_other_data_are_not_read_again(compare, tmp_path):
    compare(0)
    tree = {
        "mode": "solve",
        "run": str(tmp_path / "compared/small/runs/one-seed0"),
        "rounds": 2,
        "samples": 4,
        "reference": {"kind": "rk4", "steps_per_interval": 2},
        "schemes": {"euler": {"solver": "euler", "steps": [1]}},
    }
    (tmp_path / "solve.yaml").write_text(yaml.safe_dump(tree))
    comparison = load_comparison(tmp_path / "solve.yaml")
    assert "Code: " in comparison.compare(tmp_path).about
    (cached,) = (tmp_path / "solve/rows").iterdir()
    row = json.loads(cached.read_text())
    cached.write_text(json.dumps({**row, "code": "0.0.1 (abc)"}))
    assert "Code: 0.0.1 (abc)." in comparison.compare(tmp_path).about
    (tmp_path / "text.txt").write_text(OTHER)
    with pytest.raises(InputError, match="its data changed since"):
        comparison.compare(tmp_path)
