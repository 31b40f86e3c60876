"""Reports of comparisons by training whose runs are there: recipes, and equal costs."""

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
    """Runs as if they had been made: Heun's method makes two evaluations where the others make
    one, and half as many tokens a second."""
    for name, losses in LOSSES.items():
        cost = 2 if name.startswith("heun") else 1
        for seed, loss in enumerate(losses):
            run = folder / f"{name}-seed{seed}"
            run.mkdir(parents=True)
            summary = {"steps": 12, "nfe": 2 * cost, "parameters": 7, "seconds": 1.0}
            (run / "summary.json").write_text(json.dumps(summary | {"validation_loss": loss}))
            rates = {"tokens_per_second": 9.0 / cost, "field_evaluations": 2 * cost}
            lines = [
                line
                for step in (3, 6, 9, 12)
                for line in (
                    {"step": step, "loss": loss, **rates},
                    {"step": step, "validation_loss": loss + 12 - step},
                )
            ]
            (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


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


def test_equal_costs_are_those_of_the_cheapest(comparison, tmp_path):
    """Heun's method has made half of its steps where it has cost as much."""
    write_runs(tmp_path / "recipes/runs")
    report = comparison.compare(tmp_path)
    for row in report.rows:
        ahead = 6 if row["scheme"].startswith("heun") else 0
        for column in ("at_equal_evaluations", "at_equal_time"):
            assert row[column] == pytest.approx(row["validation_loss"] + ahead)
    assert "Field evaluations differ, from 24 to 48" in report.about


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
