"""Methods that make a trained model shorter, by their formulas, and their comparison."""

import itertools
import json

import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.contrib import least_turned
from ide_transformer.contrib.depth_problem import Problem, make_problem
from ide_transformer.contrib.shorter import (
    METHODS,
    budgets,
    save_shorter,
    study_shortening,
    summary,
)
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
from tests.training import stub


def cross_entropies(logits):
    targets = np.roll(CALIBRATION, -1, axis=1)
    logs = logits - jnp.log(jnp.sum(jnp.exp(logits), axis=-1, keepdims=True))
    return -jnp.mean(jnp.take_along_axis(logs, jnp.asarray(targets)[..., None], -1), (1, 2))


def test_sleb_drops_layers_one_by_one_by_the_loss():
    model = model_of()
    problem = Problem(
        CALIBRATION, HELD_OUT, cross_entropies, calibration_losses=cross_entropies
    )

    def loss(layers):
        outputs = by_hand(model, layer_by_layer(layers), CALIBRATION)
        return float(np.mean(cross_entropies(outputs)))

    layers_left = tuple(range(LAYERS))
    for shorter, steps in METHODS["sleb"](model, problem, [3, 2, 1], 0):
        tries = [tuple(x for x in layers_left if x != dropped) for dropped in layers_left]
        layers_left = min(tries, key=loss)
        assert steps == " ".join(map(str, layers_left))
        assert largest(outputs(shorter), by_hand(model, layer_by_layer(layers_left))) < 1e-12
    assert len(layers_left) == 1
    with pytest.raises(ide.InputError, match=r"sleb: .*targets"):
        next(METHODS["sleb"](model, problem._replace(calibration_losses=None), [1], 0))


def test_shortgpt_drops_the_layers_that_turn_the_state_least():
    """`block_influence`, by the mean over tokens of one minus the cosine."""
    model = model_of()
    states = states_by_hand(model, layer_by_layer(range(LAYERS)), CALIBRATION)
    units = [u / np.linalg.norm(u, axis=-1, keepdims=True) for u in states[::2]]
    turns = [np.mean(1 - np.sum(u * v, axis=-1)) for u, v in itertools.pairwise(units)]
    problem = Problem(CALIBRATION, HELD_OUT, cross_entropies)
    three, two = METHODS["block_influence"](model, problem, [3, 2], 0)
    most = np.argsort(turns)[::-1]
    assert three.steps == " ".join(map(str, sorted(most[:3])))
    assert two.steps == " ".join(map(str, sorted(most[:2])))
    # Of all but layer 0.
    first = 1 + np.argmin(turns[1:])
    assert least_turned(model, 1, CALIBRATION) == range(first, first + 1)


def test_budgets_are_the_most_layers_that_a_share_of_the_evaluations_allows():
    assert budgets(4) == {3: "90%, 75%", 2: "50%"}


def test_a_table_of_methods_is_paired_over_samples():
    def row(method, draw, losses):
        figures = {"loss": np.mean(losses), "error": 0.1, "field_evaluations": 2.0}
        name = {"method": method, "draw": draw, "layers": 2, "budgets": "50%"}
        return name | figures | {"losses": losses, "cooled": [x / 2 for x in losses]}

    rows = [row("native", None, [1.0, 2.0, 4.0]), row("coarsened", 0, [1.0, 3.0, 4.0])]
    rows += [row("sleb", 0, [2.0, 2.0, 5.0]), row("sleb", 1, [2.0, 4.0, 5.0])]
    rows += [row("block_influence", 0, [9.0, 9.0, 9.0])]
    about = {"model": "m", "loss": "loss", "calibration": 1, "held_out": 3}
    table = {row["method"]: row for row in summary(about, rows).rows}
    assert list(table) == ["coarsened", "sleb", "block_influence"]
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
    assert {row["method"] for row in rows} >= {"block_influence", "replace_me", "coarsened"}
    assert (tmp_path / "out/methods/report.md").is_file()
    loaded = ide.load_model(source)
    first, second = (make_problem(loaded, 4, 4, draw) for draw in (0, 1))
    np.testing.assert_array_equal(first.held_out, second.held_out)
    assert not (first.calibration == second.calibration).all(axis=1).any()
    with pytest.raises(ide.InputError, match="another file"):
        study_shortening(str(source), file, calibration=5, held_out=4)


@pytest.mark.heavy
def test_the_script_saves_a_model_with_fewer_layers(tmp_path, capsys):
    source = changed_copy(tmp_path / "gpt2", "gpt2")
    run = stub.start_run(stub.config(**stub.tree_of_text(tmp_path)), tmp_path).path
    for path, method, library in ((source, "replace_me", True), (run, "coarsened", False)):
        folder = tmp_path / method
        options = "--calibration", 4, "--save", folder, "--method", method
        (line,) = run_here(capsys, "depth", path, *options).splitlines()
        assert line.startswith(f"{folder}: 1 of 2 layers, {method}, relative error 0.")
        assert ide.load_pretrained(folder).layers == 1
        assert (folder / "tokenizer.json").is_file() != library
    with pytest.raises(ide.InputError, match=r"gpt2 .*2 layers"):
        save_shorter(str(source), tmp_path / "more", layers=2)
    with pytest.raises(ide.InputError, match="replace_me"):
        save_shorter(str(source), tmp_path / "replace_me")
