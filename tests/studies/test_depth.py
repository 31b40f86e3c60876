"""The study of coarser and finer solves: its tasks, rules, rankings, budgets and script."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from golden.copies import changed_copy
from helpers import GOLDEN, drawn
from layered_models import CALIBRATION, HELD_OUT, LAYERS, model_of, outputs
from running import run_here

import ide_transformer as ide
from ide_transformer.dynamics import refine, removal_damage, richardson
from ide_transformer.studies import depth, depth_problem
from ide_transformer.studies.depth import (
    NEEDED,
    RULES,
    Problem,
    _Study,
    compare_budgets,
    measure_coarsening,
    plot_methods,
    spearman,
)
from ide_transformer.studies.depth_problem import (
    halves_of_speeches,
    make_problem,
    sample_losses,
)
from ide_transformer.tasks import Batch, CrossEntropy, InstanceCrossEntropy, PHop, RelativeError
from ide_transformer.training import LoadedModel


def test_a_checkpoint_without_data_imitates_its_native_outputs(tmp_path):
    loaded = ide.load_model(GOLDEN / "vit")
    problem = make_problem(loaded, 3, 2)
    assert problem.loss == "distance from the native outputs, random images"
    assert problem.sizes == (3, 2)
    outputs = loaded.model(problem.held_out)
    assert np.abs(problem.losses(outputs)).max() < 1e-12
    assert np.allclose(problem.losses(1.1 * outputs), 0.01)
    with pytest.raises(ide.InputError, match=r"EncodedInputs.*or a model of images"):
        make_problem(ide.load_model(GOLDEN / "whisper"), 3, 2)
    (changed_copy(tmp_path, "bert") / "tokenizer.json").write_text("{")
    with pytest.raises(ide.InputError, match="is no tokenizer"):
        make_problem(ide.load_model(tmp_path), 3, 2)


def test_losses_of_samples_are_those_of_the_task():
    """Their mean is its loss; each is the mean over its own targets, weighted by their number.
    Targets that are not counted do not change them."""
    targets = np.array([[1, 0, 2], [-1, 2, -1], [-1] * 3])
    logits = drawn((3, 3, 4), seed=3)
    found = sample_losses(InstanceCrossEntropy(), logits, targets)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    each = -np.log(np.take_along_axis(probabilities, np.maximum(targets, 0)[..., None], -1))
    totals = np.where(targets == -1, 0, each[..., 0]).sum(axis=1)
    np.testing.assert_allclose(found, totals * 3 / 4, rtol=1e-12)
    # One label for a sample.
    found = sample_losses(CrossEntropy(), logits[:, 0], targets[:, 1] + 1)
    chosen = probabilities[[0, 1, 2], 0, targets[:, 1] + 1]
    np.testing.assert_allclose(found, -np.log(chosen), rtol=1e-12)
    # Functions.
    values = drawn((3, 5), seed=4)
    found = sample_losses(RelativeError(), 1.1 * values, values)
    np.testing.assert_allclose(found, 0.1, rtol=1e-12)


class Functions(PHop):
    """Functions that are to be doubled, on a domain of their own or none."""

    loss = RelativeError()

    def __init__(self, domain=None):
        self.context, self.domain = 7, domain

    def draw(self, number, random, *, held_out):
        values = random.normal(size=(number, self.context))
        inputs = values if self.domain is None else ide.Field(values, self.domain)
        return Batch(inputs, 2 * values)

    def held_out(self, size, samples=None, part="validation"):
        yield self.draw(size, np.random.default_rng(0), held_out=True)


def test_a_run_is_measured_by_the_loss_of_its_task(monkeypatch):
    def problem_of(task):
        monkeypatch.setattr(depth_problem, "evaluation_task", lambda loaded: task)
        config = SimpleNamespace(training=SimpleNamespace(steps=3, seed=0))
        parts: Any = None, SimpleNamespace(), Path("run"), config
        return make_problem(LoadedModel(*parts), 3, 5)

    made = problem_of(Functions())
    assert made.loss == "relative error" and made.read is None
    np.testing.assert_allclose(made.losses(jnp.asarray(made.held_out)), 0.5, rtol=1e-12)
    with pytest.raises(ide.InputError, match="run are functions at points that all"):
        problem_of(Functions(ide.TokenDomain.uniform(7)))
    task = PHop(16)
    made = problem_of(task)
    # The calibration is a batch that training has not seen.
    np.testing.assert_array_equal(made.calibration, task.batch(3, 3, 0).inputs)
    logits = drawn((5, 16, task.vocabulary), seed=5)
    targets = next(task.held_out(5, samples=5)).targets
    loss = task.loss.measure(logits, jnp.asarray(targets))["loss"].value
    assert float(jnp.mean(made.losses(logits))) == pytest.approx(float(loss), rel=1e-12)
    assert made.loss == "cross-entropy (nats)"
    # The squared distance of what is read is twice Hellinger's.
    read = made.read(logits, None)
    np.testing.assert_allclose(jnp.sum(read**2, axis=-1), 1.0, rtol=1e-12)


def test_rules_keep_the_layers_that_they_say():
    columns = {
        "turn": np.array([0.5, 0.1, 0.9, 0.3]),
        "estimate": np.array([0.2, 0.3, 0.4, 0.1]),
    }

    def kept(name, number):
        return RULES[name](columns, number).tolist()

    assert kept("last layers dropped", 3) == [0, 1, 2]
    assert kept("evenly spread", 3) in ([0, 1, 3], [0, 2, 3])
    assert kept("evenly spread", 1) == [0]
    assert kept("least influence dropped", 3) == [0, 2, 3]
    assert NEEDED["least estimate dropped"](columns, 3).tolist() == [0, 1, 2]
    chosen = {n: [kept(f"random, seed {seed}", n) for seed in range(3)] for n in (2, 3)}
    assert chosen[3] == [kept(f"random, seed {seed}", 3) for seed in range(3)]
    for two, three in zip(chosen[2], chosen[3], strict=True):
        assert set(two) < set(three) and three == sorted(three)
    assert len({tuple(x) for x in chosen[2]}) > 1


def test_spearman_shares_ranks_and_leaves_out_what_is_not_known():
    x = np.array([1.0, 2.0, 2.0, 4.0, np.nan])
    y = np.array([10.0, 20.0, 30.0, 40.0, -1.0])
    assert abs(spearman(x, y) - 3 / np.sqrt(10)) < 1e-12
    assert np.isnan(spearman(x[-1:], y[-1:])) and np.isnan(spearman(np.ones(3), y[:3]))


def test_at_each_budget_the_best_of_either_side_is_compared_sample_by_sample():
    def row(method, evaluations, loss):
        return {"method": method, "field_evaluations": evaluations, "loss": loss}

    rows = [
        row("native", 4.0, 1.0),
        row("a", 3.0, 2.0),
        row("b", 3.0, 3.0),
        row("rule", 3.0, 2.5),
        row("failed rule", 3.0, None),
        row("a", 2.0, 4.0),
    ]
    losses = [np.full(3, row["loss"] or np.nan) for row in rows]
    losses[1] = np.array([1.0, 2.0, 3.0])
    found = compare_budgets(rows, losses, ours={"a", "b"}, theirs={"rule", "failed rule"})
    assert len(found) == 1 and found[0]["field_evaluations"] == 3
    assert (found[0]["coarsening"], found[0]["layer_dropping"]) == ("a", "rule")
    assert (found[0]["loss"], found[0]["its_loss"]) == (2.0, 2.5)
    assert found[0]["difference"] == -0.5
    assert abs(found[0]["uncertainty"] - 1 / np.sqrt(3)) < 1e-12


def losses_of(outputs):
    return jnp.mean(outputs**2, axis=(1, 2))


@pytest.mark.heavy
def test_a_study_measures_every_method_and_says_where_a_solve_failed():
    model = model_of("post-norm")

    problem = Problem(CALIBRATION, HELD_OUT, losses_of)
    study = measure_coarsening(model, problem, refinements=(2,), tolerances=(0.5, 1e-6))
    by_method = {(row["method"], row["field_evaluations"]): row for row in study.rows}
    native = by_method["native", LAYERS]
    assert (native["error"], native["change"], native["uncertainty"]) == (0, 0, 0)
    exact = float(jnp.mean(outputs(model) ** 2))
    assert abs(native["loss"] - exact) < 1e-12
    refined = float(jnp.mean(outputs(refine(model, 2)) ** 2))
    assert abs(by_method["refined", 2 * LAYERS]["change"] - (refined - exact)) < 1e-12
    extrapolated = float(jnp.mean(richardson(model, 2, HELD_OUT) ** 2))
    assert abs(by_method["extrapolated", 6 * LAYERS]["loss"] - extrapolated) < 1e-10
    adaptive = [row["loss"] for row in study.rows if row["method"] == "adaptive"]
    assert adaptive[0] is not None and adaptive[1] is None
    assert [row["field_evaluations"] for row in study.budgets] == [3, 2]
    damage = [row["damage"] for row in study.layers]
    assert np.allclose(damage, removal_damage(model, HELD_OUT), rtol=1e-10)


@pytest.mark.heavy
def test_adaptive_rows_differ():
    """Both tolerances were met by the first try in every interval."""
    study = _Study(model_of(), Problem(CALIBRATION, HELD_OUT, losses_of))
    for tolerance in (10.0, 5.0):
        study.adapt(tolerance)
    _, first, second = study.rows
    assert first["layers"] == "tolerance 10" and first["field_evaluations"] == 5 * LAYERS
    assert second["field_evaluations"] > first["field_evaluations"]
    assert second["layers"] != "tolerance 5" and second["error"] != first["error"]


def test_figures_are_written(tmp_path, monkeypatch):
    rows = [
        {"method": "native", "field_evaluations": 4.0, "error": 0.0, "loss": 2.0},
        {"method": "coarsened", "field_evaluations": 3.0, "error": 0.1, "loss": 2.1},
        {"method": "random, seed 0", "field_evaluations": 3.0, "error": 0.2, "loss": 2.2},
        {"method": "random, seed 1", "field_evaluations": 3.0, "error": 0.3, "loss": 2.4},
        {"method": "refined", "field_evaluations": 8.0, "error": 0.3, "loss": 2.5},
        {"method": "adaptive", "field_evaluations": 9.0, "error": None, "loss": None},
    ]
    panels = {}
    monkeypatch.setattr(
        depth, "plot_panels", lambda path, drawn, **_: panels.update({path.name: drawn})
    )
    plot_methods(tmp_path, rows)
    few, more = panels["loss.png"].values()
    assert [(curve.label, curve.x, curve.y) for curve in [*few, *more]] == [
        ("coarsened", [4, 3], [2.0, 2.1]),
        ("random (mean)", [4, 3], [2.0, pytest.approx(2.3)]),
        ("refined", [4, 8], [2.0, 2.5]),
    ]
    monkeypatch.undo()
    plot_methods(tmp_path, rows)
    assert {path.name for path in tmp_path.iterdir()} == {"error.png", "loss.png"}


def test_halves_of_speeches_hold_their_words():
    lines = [f"Words of line {n}, and so on to the end." for n in range(9)]
    speech = "\n".join(["## Ham.", *lines])
    text = f"# Act\n\n{speech}\n_Exit_\n\n## Oph.\nToo short."
    ((first, second),) = halves_of_speeches(text)
    words = " ".join(lines).split()
    assert f"{first} {second}".split() == words
    assert abs(len(first.split()) - len(second.split())) <= 1


@pytest.mark.heavy
def test_the_script_writes_tables_and_figures(tiny_run, tmp_path, capsys):
    out = tmp_path / "out"
    sizes = ("--calibration", 4, "--held-out", 4)
    run_here(capsys, "depth.py", tiny_run, *sizes, "--out", out)
    rows = json.loads((out / "report.json").read_text())["rows"]
    native = rows[0]
    assert native["method"] == "native" and native["error"] == 0
    # To merge linear layers is exact.
    assert all(row["error"] > 0 for row in rows if "dropped" in row["method"])
    cheaper = {
        row["method"] for row in rows if row["field_evaluations"] < native["field_evaluations"]
    }
    assert {"coarsened", "merged", "evenly spread", "random, seed 2"} <= cheaper
    for name in ("budgets", "layers"):
        assert (out / name / "report.md").exists()
    assert (out / "loss.png").exists()
