"""Methods that make a trained model shorter, by their formulas, and their comparison."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.contrib import angular_distances, eliminate, least_angle
from ide_transformer.contrib.depth import Problem
from ide_transformer.contrib.depth_problem import make_problem
from ide_transformer.contrib.shortening_study import budgets, study_shortening, summary
from ide_transformer.dynamics import keep_layers
from tests.golden.copies import changed_copy
from tests.helpers import largest
from tests.layered_models import (
    CALIBRATION,
    HELD_OUT,
    LAYERS,
    by_hand,
    layer_by_layer,
    model_of,
    outputs,
    states_by_hand,
)
from tests.running import run_here


def test_angular_distances_are_those_of_last_tokens():
    """The last token that is no padding."""
    model = model_of("attention")
    lengths = np.array([8, 6, 8, 5])
    text = ide.Text(HELD_OUT, np.arange(8) < lengths[:, None])
    states = states_by_hand(model, layer_by_layer(range(LAYERS)), text)
    ends = np.array([np.asarray(u)[np.arange(4), lengths - 1] for u in states[::2]])

    def distance(u, v):
        cosine = np.sum(u * v, -1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
        return np.mean(np.arccos(cosine)) / np.pi

    expected = [distance(ends[i], ends[i + 2]) for i in range(LAYERS - 1)]
    assert largest(angular_distances(model, 2, text), expected) < 1e-12
    first = int(np.argmin(expected))
    assert least_angle(model, 2, text) == range(first, first + 2)
    (whole,) = angular_distances(model, LAYERS, text)
    assert abs(whole - distance(ends[0], ends[-1])) < 1e-12


def cross_entropies(logits):
    targets = np.roll(CALIBRATION, -1, axis=1)
    logs = logits - jnp.log(jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))
    return -jnp.mean(jnp.take_along_axis(logs, jnp.asarray(targets)[..., None], -1), (1, 2))


def roots(logits, inputs):
    return jnp.sqrt(jnp.exp(logits) / jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))


def test_layers_are_eliminated_one_by_one_by_loss_or_by_divergence():
    """SLEB, and the same without targets."""
    model = model_of()
    problem = Problem(
        CALIBRATION, HELD_OUT, cross_entropies, read=roots, calibration_losses=cross_entropies
    )
    native = np.asarray(roots(outputs(model, CALIBRATION), None)) ** 2

    def loss(layers):
        found = by_hand(model, layer_by_layer(layers), CALIBRATION)
        return float(np.mean(cross_entropies(found)))

    def divergence(layers):
        found = by_hand(model, layer_by_layer(layers), CALIBRATION)
        q = np.asarray(roots(found, None)) ** 2
        return float(np.mean(np.sum(native * np.log(native / q), axis=-1)))

    for score, by_formula in (
        (problem.loss_score(), loss),
        (problem.divergence_score(model), divergence),
    ):
        assert abs(score(keep_layers(model, [0, 2])) - by_formula([0, 2])) < 1e-9
        kept = tuple(range(LAYERS))
        found = list(eliminate(model, score))
        for layers, _ in found:
            tries = [tuple(x for x in kept if x != gone) for gone in kept]
            kept = min(tries, key=by_formula)
            assert layers == kept
        assert len(kept) == 1
        exact = by_hand(model, layer_by_layer(kept))
        assert largest(outputs(found[-1][1]), exact) < 1e-12


def test_budgets_are_the_most_layers_that_a_share_of_the_evaluations_allows():
    assert budgets(4) == {3: "90%, 75%", 2: "50%"}
    assert budgets(20) == {18: "90%", 15: "75%", 10: "50%"}
    assert budgets(1) == {}


def test_a_table_of_methods_is_paired_over_samples():
    def row(method, draw, losses):
        figures = {"loss": np.mean(losses), "error": 0.1, "field_evaluations": 2.0}
        name = {"method": method, "draw": draw, "layers": 2, "budgets": "50%"}
        return name | figures | {"losses": losses, "cooled": [x / 2 for x in losses]}

    rows = [
        row("native", None, [1.0, 2.0, 4.0]),
        row("sleb", 0, [2.0, 2.0, 5.0]),
        row("sleb", 1, [2.0, 4.0, 5.0]),
        row("angular_distance", 0, [9.0, 9.0, 9.0]),
        row("coarsened", 0, [1.0, 3.0, 4.0]),
    ]
    about = {"model": "m", "loss": "loss", "calibration": 1, "held_out": 3}
    table = {row["method"]: row for row in summary(about, rows).rows}
    assert list(table) == ["coarsened", "sleb", "angular_distance"]
    sleb = table["sleb"]
    # Means over draws: 2, 3, 5; over the native: 1, 1, 1.
    assert sleb["loss"] == pytest.approx(10 / 3) and sleb["change"] == pytest.approx(1)
    assert sleb["uncertainty"] == pytest.approx(0, abs=1e-12) and sleb["difference"] == 0
    assert sleb["spread"] == pytest.approx((11 / 3 - 3) / np.sqrt(2))
    assert sleb["cooled_change"] == pytest.approx(0.5)
    ours = table["coarsened"]
    assert ours["difference"] == pytest.approx(-2 / 3)
    assert ours["its_uncertainty"] == pytest.approx(np.std([-1, 0, -1], ddof=1) / np.sqrt(3))


@pytest.mark.heavy
def test_methods_are_measured_and_go_on_where_they_ended(tmp_path, capsys):
    source = changed_copy(tmp_path / "gpt2", "gpt2")
    options = "--calibration", 4, "--held-out", 4, "--out", tmp_path / "out"
    first = "--methods", "sleb,last", "--draws", 1
    run_here(capsys, "depth", source, *options, *first)
    file = tmp_path / "out/methods.json"
    before = json.loads(file.read_text())["rows"]
    assert [row["method"] for row in before] == ["native", "sleb", "last"]
    printed = run_here(capsys, "depth", source, *options, "--methods", "all", "--draws", 2)
    assert "draw 0, sleb" not in printed and "draw 1, sleb" in printed
    rows = json.loads(file.read_text())["rows"]
    assert rows[:3] == before
    assert {row["method"] for row in rows} >= {"angular_distance", "replace_me", "coarsened"}
    assert (tmp_path / "out/methods/report.md").is_file()
    loaded = ide.load_model(source)
    first, second = (make_problem(loaded, 4, 4, draw) for draw in (0, 1))
    np.testing.assert_array_equal(first.held_out, second.held_out)
    assert not (first.calibration == second.calibration).all(axis=1).any()
    with pytest.raises(ide.InputError, match=r"methods=.'slep'.: give some of last, even"):
        study_shortening(str(source), file, methods=["slep"])
    with pytest.raises(ide.InputError, match=r"has rows for .*; name another file"):
        study_shortening(str(source), file, calibration=5, held_out=4)
