"""Comparisons by training, whose runs are written as if they had been made."""

import json
import math
from types import SimpleNamespace

import filelock
import numpy as np
import pytest
import yaml

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.compare import budget, further_tests
from ide_transformer.compare.results import learning_curve
from ide_transformer.compare.sweep import Sweep, Trial, tune
from ide_transformer.compare.train_schemes import TrainingComparison
from tests.training.stub import TEXT, tree_of_text as base


RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"
DRAW = TrainingComparison.draw
RECIPES = {
    "mode": "train",
    "base": "base.yaml",
    "seeds": [0, 1, 2],
    "budget": {"amount": 12},
    "schemes": {"ordinary": {}, "heun": {"solver": "heun"}},
    "recipes": {"S1": {"training": {"costs": {"transport": 0.01}}}},
    "reference": "ordinary",
}
LOSSES = {
    "ordinary": (2.0, 2.2, 2.1),
    "heun": (1.9, 2.2, 2.0),
    "ordinary_with_S1": (1.8, 1.9, 1.9),
    "heun_with_S1": (1.8, 1.7, 1.9),
}


@pytest.fixture(autouse=True)
def losses(runs, monkeypatch):
    """Whether a model can be built is not asked before a run; `test_plans` does."""
    runs.losses = dict(LOSSES)
    unbuilt = SimpleNamespace(check_shapes=lambda: None)
    monkeypatch.setattr(budget, "setup", lambda *_: unbuilt)


def edit(path, **changes):
    """Changes some keys in a file of JSON."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_recipes_are_compared_with_the_reference_at_equal_cost(compare, runs, folder):
    report = compare(RECIPES)
    rows = {row["scheme"]: row for row in report.rows}
    assert [*rows] == ["heun with S1", "ordinary with S1", "heun", "ordinary"]
    differences = [rows[name]["difference"] for name in rows]
    assert differences[:3] == pytest.approx([-0.2 / 3, -0.7 / 3, -0.2 / 3])
    assert differences[3] is None
    # t(0.975, 2) = 4.302653, from a table.
    half = 4.302653 * np.std([-0.1, 0.0, -0.1], ddof=1) / np.sqrt(3)
    assert rows["heun"]["half_width"] == pytest.approx(half, rel=1e-6)
    # Heun's method has made half of its steps where it has cost as much.
    for name, row in rows.items():
        ahead = 6 if name.startswith("heun") else 0
        for column in ("at_equal_evaluations", "at_equal_time"):
            assert row[column] == pytest.approx(row["validation_loss"] + ahead)
    assert rows["ordinary"]["spread"] == pytest.approx(0.1)
    conclusion = "not told apart from ordinary with S1: heun with S1; lower than ordinary: "
    assert f"{conclusion}ordinary with S1; not told apart from ordinary: heun. " in report.about
    # Of 12 steps 2 are many.
    assert "optimizer.warmup: heun with S1 (2 of 12), ordinary" in report.about
    assert json.loads((folder / "report.json").read_text())["rows"] == report.rows
    # Runs are made once, by one process.
    assert len(runs.made) == 12 and compare(RECIPES) == report and len(runs.made) == 12
    refused = pytest.raises(ide.InputError, match="another process")
    with filelock.FileLock(folder / "lock"), refused:
        compare(RECIPES)


def test_logs_of_runs_that_are_damaged_are_named(compare, folder):
    """Other steps, half of a log, a rate that is missing, and no log."""
    compare(RECIPES, recipes={})
    log, summary = (
        folder / "runs/ordinary-seed1" / x for x in ("metrics.jsonl", "summary.json")
    )
    text, intact = log.read_text(), summary.read_text()
    for file, damaged in (
        (summary, intact.replace('"steps": 12', '"steps": 16')),
        (log, text[: len(text) // 2]),
        (log, text.replace(": 9.0", ": null", 1)),
        (log, None),
    ):
        file.unlink() if damaged is None else file.write_text(damaged)
        with pytest.raises(ide.InputError, match=r"ordinary-seed1/metrics\.jsonl"):
            compare(RECIPES, recipes={})
        summary.write_text(intact)


@pytest.mark.parametrize(
    ("keys", "extend", "best", "most", "tried", "expected", "at_edge"),
    [
        ({RATE: [1.0, 2.0, 4.0]}, 2, (2.0,), 99, 3, (2.0,), []),
        ({RATE: [1.0, 2.0, 4.0]}, 2, (8.0,), 99, 5, (8.0,), []),
        ({RATE: [1.0, 2.0, 4.0]}, 2, (100.0,), 99, 5, (16.0,), [RATE]),
        # As far as a run can have them.
        ({RATE: [1.0, 2.0, 4.0]}, 3, (100.0,), 10, 4, (8.0,), [RATE]),
        # Several keys are combined and extended each.
        ({RATE: [1.0, 2.0, 4.0], DECAY: [1.0, 3.0]}, 1, (2, 9), 99, 9, (2.0, 9.0), [DECAY]),
        # Integers stay integers.
        ({"model.layers": [4, 8]}, 2, (99,), 99, 4, (32,), ["model.layers"]),
        # A further one would have the same folder: 1.0004² / 1.0006 is called 1, as 1.0004 is.
        ({RATE: [1.0004, 1.0006]}, 2, (0.1,), 99, 2, (1.0004,), [RATE]),
    ],
)
def test_values_go_on_at_the_edge(keys, extend, best, most, tried, expected, at_edge):
    measured_values = []

    def measured(trial):
        measured_values.append(trial.values)
        return sum(abs(math.log(x / y)) for x, y in zip(trial.values, best, strict=True))

    tried_values = {key: tuple(values) for key, values in keys.items()}
    sweep = Sweep(keys=tried_values, extend=extend)
    tuning = tune("scheme", sweep, 3, measured, lambda trial: sum(trial.values) < most)
    assert tuning.best == Trial("scheme", expected, 3) and tuning.at_edge == at_edge
    assert len(measured_values) == len(set(measured_values)) == tried
    assert list(map(type, tuning.best.values)) == list(map(type, expected))


def test_each_scheme_is_trained_within_each_budget(compare, runs):
    runs.loss = lambda config: 3 - config.training.steps / 24 - config.training.seed
    report = compare(RECIPES, budget={"amount": [24, 12]}, seeds=[0, 1], recipes={})
    rows = {row["scheme"]: row for row in report.rows}
    names = [
        f"{scheme}, {steps} steps" for steps in (24, 12) for scheme in ("ordinary", "heun")
    ]
    assert [rows[name]["steps"] for name in names] == [24, 24, 12, 12]
    assert [rows[name]["difference"] for name in names] == [None, 0.0, 0.5, 0.5]
    # The reference has the largest budget, and costs differ on purpose.
    assert "bove ordinary, 24 steps: ordinary, 12 steps" in report.about
    assert "Field evaluations differ" not in report.about


SWEEP = {
    **{"mode": "train", "base": "base.yaml", "seeds": [0, 1], "budget": {"amount": 12}},
    "sweep": {"keys": {RATE: [0.1, 0.2, 0.4]}, "extend": 1},
    "schemes": {"ordinary": {}, "heun": {"solver": "heun"}, "failing": {"solver": "rk4"}},
    "reference": "ordinary",
}


def write_base_with_test_data(folder):
    tree = base(folder)
    tree["data"]["test"] = 0.1
    (folder / "base.yaml").write_text(yaml.safe_dump(tree))


def test_what_is_tuned_is_reported_on_test_data(compare, runs, folder, monkeypatch, tmp_path):
    write_base_with_test_data(tmp_path)

    def loss(config):
        if config.solver.kind == "rk4":
            raise RuntimeError("no memory")
        best = 9.0 if config.solver.kind == "heun" else 0.2
        return 1 + abs(math.log(config.optimizer.learning_rate / best)) + config.training.seed

    runs.loss = loss
    monkeypatch.setattr(TrainingComparison, "draw", DRAW)
    report = compare(SWEEP)
    ordinary, heun, failed = report.rows
    assert (ordinary[RATE], ordinary["at_edge"]) == (0.2, None)
    assert (heun[RATE], heun["at_edge"]) == (0.8, RATE)
    assert ordinary["seeds"] == [2.0, 4.0] and ordinary["test_loss"] == 3.0
    assert failed["scheme"] == "failing" and failed["failure"] == "RuntimeError: no memory"
    assert failed["test_loss"] is None and failed["difference"] is None
    tried = json.loads((folder / "sweep.json").read_text())
    assert [x[RATE] for x in tried if x["scheme"] == "heun"] == [0.1, 0.2, 0.4, 0.8]
    assert len(list(folder.glob("*.png"))) == 4
    num_runs = len(runs.made)
    assert compare(SWEEP) == report and len(runs.made) == num_runs


def test_a_seed_that_only_tunes_is_not_reported(compare, runs, tmp_path):
    write_base_with_test_data(tmp_path)
    # The tuning seed alone would have the lowest loss.
    runs.loss = lambda config: 1 + config.training.seed + config.optimizer.learning_rate
    report = compare(SWEEP, **{"sweep/seed": 0, "seeds": [2, 1], "schemes": {"ordinary": {}}})
    (row,) = report.rows
    assert (row[RATE], row["seeds"]) == (0.05, [6.1, 4.1])
    measured = {x for x in runs.made if "seed0" not in x}
    assert measured == {"ordinary-0.05-seed1", "ordinary-0.05-seed2"}
    assert "loss for seed 0" in report.about


def test_runs_on_other_data_are_refused_and_other_code_is_named(
    compare, runs, folder, tmp_path
):
    assert "Code: 0.1 (abc)." in compare(RECIPES).about
    with pytest.raises(ide.InputError, match=r"seed0: .*training.steps: 12 there, 16 here"):
        compare(RECIPES, **{"budget/amount": 16})
    # Not by what does not change its numbers.
    assert len(compare(RECIPES, **{"schemes/heun/parallel": {"timeout": 200}}).rows) == 4
    text = tmp_path / "text.txt"
    text.write_text(TEXT.replace("wide", "cold"))
    refusal = r"this run differs \(its data changed since\)"
    with pytest.raises(ide.InputError, match=refusal):
        compare(RECIPES)
    text.write_text(TEXT)
    runs.source = "0.2 (def)"
    (folder / "runs/ordinary-seed1").rename(tmp_path / "elsewhere")
    about = compare(RECIPES).about
    assert "by different code: 0.2 (def): ordinary-seed1; 0.1 (abc): " in about


def test_losses_that_are_not_finite_or_zero(compare, runs, folder):
    runs.loss = lambda config: 1 / (config.name != "heun-seed2")
    compare(RECIPES)
    log = folder / "runs/ordinary-seed0/metrics.jsonl"
    lines = log.read_text().replace('"validation_loss": 10.0', '"validation_loss": null')
    log.write_text(lines)
    for seed in range(3):
        edit(folder / f"runs/heun_with_S1-seed{seed}/summary.json", validation_loss=0.0)
    edit(folder / "runs/ordinary_with_S1-seed1/summary.json", validation_loss=None)
    best, ordinary, *failures = compare(RECIPES).rows
    assert best["scheme"] == "heun with S1" and best["validation_loss"] == 0
    assert ordinary["at_equal_time"] == pytest.approx(1.0)
    why = {row["scheme"]: row["failure"] for row in failures}
    assert "is not finite" in why["ordinary with S1"]
    assert why["heun"].startswith("ZeroDivisionError")
    assert all(row["validation_loss"] is row["difference"] is None for row in failures)
    # A failure belongs to its configuration.
    file = folder / "runs/heun-seed2.failed.json"
    file.write_text(file.read_text().replace('"learning_rate": 0.01', '"learning_rate": 0.5'))
    with pytest.raises(ide.InputError, match=r"heun-seed2.failed.json: .*learning_rate: 0.5"):
        compare(RECIPES)


def test_costs_of_a_run_are_those_of_its_phases():
    """Half of its steps ten times as slow; evaluations of meshes of which some are logged."""
    speeds = {100: 1e4, 500: 1e4, 600: 1e3, 1000: 1e3}
    names = "step", "tokens_per_second", "field_evaluations"
    log = [dict(zip(names, (x, y, 2 + x % 500), strict=True)) for x, y in speeds.items()]
    # The loss at the end is measured on all samples, so it is another.
    run = {"log": log, "steps": 1000, "validation_loss": 7.0, "nfe": 3.0}
    log += [{"step": 500, "validation_loss": 2.0}, {"step": 1000, "validation_loss": 1.0}]
    curve = learning_curve([run], [np.repeat([500, 1000], 500)])
    np.testing.assert_allclose(curve.seconds, [25, 525])
    assert curve.evaluations[-1] == 3000 and [*curve.losses] == [2.0, 1.0]


def loaded_without_weights(run, overrides):
    config = training.load_config(run.config, overrides)
    return training.LoadedModel(None, run, run.path, config)


def test_trained_runs_are_measured_on_further_tests(compare, runs, folder, monkeypatch):
    measured = []

    def evaluate(loaded, meshes, **options):
        measured.append(loaded.run.path.name)
        seed = loaded.config.training.seed
        error = loaded.config.model.context + (seed**2 if loaded.run.path.name[0] == "h" else 0)
        return [{"layers": meshes[0].layers, "loss": error, "samples": options["samples"]}]

    monkeypatch.setattr(further_tests, "evaluate_on_meshes", evaluate)
    monkeypatch.setattr(further_tests, "load_model", loaded_without_weights)
    longer = {"context": 16, "mesh": {"layers": 2}, "samples": 3, "part": "validation"}
    tests = {"longer": longer, "own": {"schemes": ["heun"], "part": "validation"}}
    compare(RECIPES, recipes={}, tests=tests)
    rows = json.loads((folder / "tests/report.json").read_text())["rows"]
    assert [row["test"] for row in rows] == ["longer", "longer", "own"]
    assert [row["scheme"] for row in rows] == ["ordinary", "heun", "heun"]
    ordinary, heun, alone = rows
    assert (ordinary["seeds"], heun["seeds"]) == ([16, 16, 16], [16, 17, 20])
    assert (heun["lowest"], heun["median"], heun["highest"]) == (16, 17, 20)
    half = 4.302653 * np.std([0, 1, 4], ddof=1) / np.sqrt(3)
    assert heun["difference"] == pytest.approx(5 / 3)
    assert heun["half_width"] == pytest.approx(half, rel=1e-6)
    assert alone["mean"] == pytest.approx(heun["mean"] - 8) and alone["difference"] is None
    # A changed test is measured again, and nothing else.
    assert len(measured) == 9
    tests["own"]["samples"] = 2
    compare(RECIPES, recipes={}, tests=tests)
    assert measured[9:] == ["heun-seed0", "heun-seed1", "heun-seed2"]
    # Wrong tests are refused before anything is trained.
    del runs.made[:]
    for wrong in ({"context": 0}, {"mesh": {"layer": 2}}, {"schemes": ["rk4"]}):
        with pytest.raises(ide.InputError, match=f"tests.far.*{next(iter(wrong))}"):
            compare(RECIPES, recipes={}, tests={"far": wrong}, name="again")
    assert not runs.made
