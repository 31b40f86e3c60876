"""Recipes of a comparison: what is given to each of its schemes, beside the schemes."""

import json

import pytest
from helpers import ROOT

from ide_transformer.studies.schemes import load_comparison


RECIPES = f"""
mode: train
base: {ROOT / "configs/quick.yaml"}
seeds: [0, 1, 2]
budget: {{amount: 12}}
schemes:
  ordinary: {{}}
  heun: {{solver: heun, model: {{depth: 2}}}}
recipes:
  S1: {{model: {{input_normalization: sphere}}, training: {{transport: 0.01}}}}
reference: ordinary
"""

LOSSES = {
    "ordinary": (2.0, 2.2, 2.1),
    "heun": (1.9, 2.2, 2.0),
    "ordinary_with_S1": (1.8, 1.9, 1.9),
    "heun_with_S1": (1.8, 1.7, 1.9),
}


@pytest.fixture
def comparison(tmp_path):
    path = tmp_path / "recipes.yaml"
    path.write_text(RECIPES)
    return load_comparison(path)


def write_runs(folder):
    """Runs as if they had been made."""
    for name, losses in LOSSES.items():
        for seed, loss in enumerate(losses):
            run = folder / f"{name}-seed{seed}"
            run.mkdir(parents=True)
            summary = {"steps": 12, "nfe": 4, "parameters": 7, "seconds": 1.0}
            (run / "summary.json").write_text(json.dumps(summary | {"validation_loss": loss}))
            line = {"step": 12, "loss": loss, "tokens_per_second": 9.0, "field_evaluations": 4}
            (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")


def test_a_recipe_is_laid_over_each_scheme(comparison):
    assert [*comparison.contenders] == ["ordinary", "heun", "ordinary with S1", "heun with S1"]
    heun, recipe = comparison.contenders["heun with S1"]
    assert heun == comparison.schemes["heun"] and recipe == comparison.recipes["S1"]


def test_a_difference_is_that_to_the_reference_with_the_same_recipe(comparison, tmp_path):
    write_runs(tmp_path / "recipes/runs")
    report = comparison.compare(tmp_path)
    differences = {row["scheme"]: row["difference"] for row in report.rows}
    assert differences["ordinary"] is None
    assert differences["heun"] == pytest.approx(-0.2 / 3)
    assert differences["heun with S1"] == pytest.approx(-0.2 / 3)
    assert differences["ordinary with S1"] == pytest.approx(-0.7 / 3)
    assert "to ordinary with the same recipe (S1)" in report.about


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ordinary: {}", "'ordinary with S1': {}\n  ordinary: {}", "would share a folder"),
        ("transport: 0.01", "transprt: 0.01", "schemes.ordinary with S1"),
    ],
)
def test_recipes_that_cannot_be(tmp_path, old, new, message):
    path = tmp_path / "wrong.yaml"
    path.write_text(RECIPES.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_comparison(path).compare(tmp_path)
