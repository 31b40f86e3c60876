"""The study of coarser and finer solves: rules, rankings, budgets and its script."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from layered_models import CALIBRATION, HELD_OUT, LAYERS, model_of, outputs
from running import run_here

from ide_transformer.dynamics import refine, removal_damage, richardson
from ide_transformer.studies import depth
from ide_transformer.studies.depth import (
    Problem,
    _Study,
    at_random,
    compare_budgets,
    evenly,
    first_layers,
    measure_coarsening,
    most,
    plot_methods,
    spearman,
)
from ide_transformer.studies.depth_problem import halves_of_speeches


def test_rules_keep_the_layers_that_they_say():
    columns = {
        "turn": np.array([0.5, 0.1, 0.9, 0.3]),
        "estimate": np.array([0.2, 0.3, 0.4, 0.1]),
    }
    assert list(first_layers(columns, 3)) == [0, 1, 2]
    assert list(evenly(columns, 3)) in ([0, 1, 3], [0, 2, 3])
    assert list(evenly(columns, 1)) == [0]
    assert list(most("turn")(columns, 3)) == [0, 2, 3]
    assert list(most("turn")(columns, 2)) == [0, 2]
    assert list(most("estimate")(columns, 3)) == [0, 1, 2]
    drawn = [[list(at_random(seed)(columns, n)) for n in (3, 2)] for seed in range(6)]
    assert drawn[0] == [list(at_random(0)(columns, n)) for n in (3, 2)]
    assert all(set(two) < set(three) and three == sorted(three) for three, two in drawn)
    assert len({tuple(two) for _, two in drawn}) > 1


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


@pytest.mark.thorough
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
def test_the_script_writes_tables_and_figures(smooth_run, tmp_path, capsys):
    out = tmp_path / "out"
    sizes = ("--calibration", 4, "--held-out", 4)
    run_here(capsys, "depth.py", smooth_run, *sizes, "--out", out)
    rows = json.loads((out / "report.json").read_text())["rows"]
    native = rows[0]
    assert native["method"] == "native" and native["error"] == 0
    assert all(row["error"] > 0 for row in rows[1:] if row["error"] is not None)
    cheaper = {
        row["method"] for row in rows if row["field_evaluations"] < native["field_evaluations"]
    }
    assert {"coarsened", "merged", "evenly spread", "random, seed 2"} <= cheaper
    for name in ("budgets", "layers"):
        assert (out / name / "report.md").exists()
    assert (out / "loss.png").exists()
