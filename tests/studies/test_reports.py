"""Reports of comparisons by training whose runs are there: recipes, and equal costs."""

import json

import filelock
import pytest
from helpers import ROOT, fast_first

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.studies.schemes import load_comparison
from ide_transformer.training import dump_config, load_config


QUICK = ROOT / "configs/quick.yaml"
RECIPES = f"""
mode: train
base: {QUICK}
seeds: [0, 1, 2]
budget: {{amount: 12}}
schemes:
  ordinary: {{}}
  heun: {{solver: heun, model: {{depth: 2}}}}
recipes:
  S1: {{model: {{input_normalization: sphere}}, training: {{transport: 0.01}}}}
reference: ordinary
"""

S1 = ["model.input_normalization=sphere", "training.transport=0.01"]
CHANGES = {
    "ordinary": [],
    "heun": ["solver=heun", "model.depth=2"],
    "ordinary_with_S1": S1,
    "heun_with_S1": ["solver=heun", "model.depth=2", *S1],
}
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
            shared = ["training.steps=12", "training.sample=0", f"training.seed={seed}"]
            config = load_config(QUICK, [f"name={run.name}", *shared, *CHANGES[name]])
            (run / "config.yaml").write_text(dump_config(config))
            (run / "fingerprints.json").write_text('{"run": "0", "sources": ["0.1 (abc)"]}')
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


def test_two_processes_do_not_make_one_comparison(comparison, tmp_path):
    write_runs(tmp_path / "recipes/runs")
    lock = filelock.FileLock(tmp_path / "recipes/lock")
    with lock, pytest.raises(ide.InputError, match="another process makes this comparison"):
        comparison.compare(tmp_path)
    comparison.compare(tmp_path)


def changed(path, key, value):
    """Changes a number in a file of JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


@pytest.mark.parametrize(
    ("old", "new", "change"),
    fast_first(
        1,
        [
            ("amount: 12", "amount: 16", "training.steps: 12 there, 16 here"),
            ("depth: 2", "depth: 3", "model.depth: 2 there, 3 here"),
            ("transport: 0.01", "transport: 0.02", "training.transport: 0.01 there, 0.02 here"),
        ],
        heavy=0,
    ),
)
def test_a_run_that_was_made_with_another_configuration_is_refused(
    comparison, tmp_path, old, new, change
):
    write_runs(tmp_path / "recipes/runs")
    (tmp_path / "recipes.yaml").write_text(RECIPES.replace(old, new))
    edited = load_comparison(tmp_path / "recipes.yaml")
    with pytest.raises(ide.InputError, match=f"seed0: this run .*{change}.* another name"):
        edited.compare(tmp_path)
    assert not (tmp_path / "recipes/report.json").exists()
    parallel = RECIPES.replace("heun: {", "heun: {parallel: {timeout: 200}, ")
    (tmp_path / "recipes.yaml").write_text(parallel)
    assert len(load_comparison(tmp_path / "recipes.yaml").compare(tmp_path).rows) == 4


def test_a_failure_is_that_of_its_configuration(comparison, tmp_path):
    runs = tmp_path / "recipes/runs"
    write_runs(runs)
    config = load_config(runs / "heun-seed1/config.yaml").model_dump(mode="json")
    data = training.build_task(load_config(QUICK)).fingerprint()
    record = {"why": "why", "configuration": config, "data": data, "code": "0.1 (abc)"}
    (runs / "heun-seed1.failed.json").write_text(json.dumps(record))
    *_, row = comparison.compare(tmp_path).rows
    assert row["scheme"] == "heun" and row["failure"] == "why"
    config["optimizer"]["learning_rate"] = 0.5
    (runs / "heun-seed1.failed.json").write_text(json.dumps(record))
    with pytest.raises(ide.InputError, match=r"heun-seed1.failed.json: .*learning_rate: 0.5"):
        comparison.compare(tmp_path)


@pytest.mark.parametrize("last", ["NaN", "Infinity", "null"])
def test_a_run_whose_last_loss_is_not_finite_failed(comparison, tmp_path, last):
    runs = tmp_path / "recipes/runs"
    write_runs(runs)
    changed(runs / "ordinary-seed0/summary.json", "validation_loss", 0.0)
    changed(runs / "heun-seed1/summary.json", "validation_loss", json.loads(last))
    report = comparison.compare(tmp_path)
    failed = report.rows[-1]
    assert failed["scheme"] == "heun" and "is not finite" in failed["failure"]
    assert failed["validation_loss"] is None and failed["difference"] is None
    assert "Failed, so without figures: heun." in report.about
    written = (tmp_path / "recipes/report.json").read_text()
    assert "NaN" not in written and "Infinity" not in written


def test_a_loss_on_the_way_may_be_not_finite_and_one_of_zero_is_the_best(comparison, tmp_path):
    runs = tmp_path / "recipes/runs"
    write_runs(runs)
    log = runs / "ordinary-seed0/metrics.jsonl"
    log.write_text(
        log.read_text().replace('"validation_loss": 11.0', '"validation_loss": null')
    )
    for seed in range(3):
        changed(runs / f"heun_with_S1-seed{seed}/summary.json", "validation_loss", 0.0)
        changed(runs / f"heun-seed{seed}/summary.json", "validation_perplexity", float("inf"))
    report = comparison.compare(tmp_path)
    assert report.rows[0]["scheme"] == "heun with S1"
    (ordinary,) = (row for row in report.rows if row["scheme"] == "ordinary")
    assert ordinary["at_equal_time"] == pytest.approx(2.1)
    assert "Infinity" not in (tmp_path / "recipes/report.json").read_text()


def test_the_time_of_a_scheme_is_that_of_its_own_samples(tmp_path):
    """With twice the context a step has twice the tokens, and takes twice the time at the same
    rate: it has made half of its steps when the other has made all."""
    path = tmp_path / "contexts.yaml"
    short = load_config(QUICK).model.context
    path.write_text(
        RECIPES.split("  heun")[0] + f"  long: {{model: {{context: {2 * short}}}}}\n"
    )
    comparison = load_comparison(path)
    runs = tmp_path / "contexts/runs"
    write_runs(runs)
    for seed in range(3):
        run = (runs / f"ordinary_with_S1-seed{seed}").rename(runs / f"long-seed{seed}")
        config = load_config(runs / f"ordinary-seed{seed}/config.yaml")
        tree = config.model_dump(mode="json")
        tree["name"], tree["model"]["context"] = run.name, 2 * short
        (run / "config.yaml").write_text(dump_config(type(config).model_validate(tree)))
    report = comparison.compare(tmp_path)
    rows = {row["scheme"]: row for row in report.rows}
    assert rows["long"]["at_equal_time"] == pytest.approx(rows["long"]["validation_loss"] + 6)
    assert "losses are on other samples: long." in report.about


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


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is damaged; restore it, or remove it"), (b"[1]", "is damaged")],
)
def test_a_damaged_summary_is_named(comparison, tmp_path, content, message):
    runs = tmp_path / "recipes/runs"
    write_runs(runs)
    damaged = runs / "heun-seed1/summary.json"
    damaged.write_bytes(content)
    with pytest.raises(ide.InputError, match=f"heun-seed1/summary.json {message}"):
        comparison.compare(tmp_path)
    assert not (tmp_path / "recipes/report.json").exists()
    assert damaged.read_bytes() == content
