"""Methods that make a trained model shorter, by their formulas, their comparison, and the texts
and losses on which they are compared."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk

import ide_transformer as ide
from ide_transformer.contrib import least_turned
from ide_transformer.contrib.depth_problem import Problem, halves_of_speeches, make_problem
from ide_transformer.contrib.shorter import METHODS, save_shorter, study_shortening, summary
from tests.golden.copies import changed_copy
from tests.helpers import drawn, largest
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
        study_shortening(loaded, file, calibration=5, held_out=4)


@pytest.mark.heavy
def test_the_script_saves_a_model_with_fewer_layers(tmp_path, capsys):
    source = changed_copy(tmp_path / "gpt2", "gpt2")
    run = stub.start_run(stub.config(**stub.tree_of_text(tmp_path)), tmp_path).path
    capsys.readouterr()  # the start of the run
    for path, method, library in ((source, "replace_me", True), (run, "coarsened", False)):
        folder = tmp_path / method
        options = "--calibration", 4, "--save", folder, "--method", method
        (line,) = run_here(capsys, "depth", path, *options).splitlines()
        assert line.startswith(f"{folder}: 1 of 2 layers, {method}, relative error 0.")
        assert ide.load_pretrained(folder).layers == 1
        assert (folder / "tokenizer.json").is_file() != library
    loaded = ide.load_model(source)
    with pytest.raises(ide.InputError, match=r"gpt2 .*2 layers"):
        save_shorter(loaded, tmp_path / "more", layers=2)
    with pytest.raises(ide.InputError, match="replace_me"):
        save_shorter(loaded, tmp_path / "replace_me")


def unit_means(text, losses):
    """Directions of the means over the tokens of random states, and the losses of these."""
    mask = np.asarray(text.mask)
    states = np.asarray(drawn((*mask.shape, 5), seed=7))
    means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    return units, jax.jit(losses)(states)


def entropies_of_pairs(first, second):
    scores = 20 * first @ second.T
    return np.log(np.exp(scores).sum(1)) - np.diag(scores)


def test_the_loss_of_a_text_encoder_is_that_of_finding_other_halves(tmp_path):
    """Among 64 speeches; the last group has fewer."""
    letters = {chr(60 + i): i for i in range(61)}
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, [], unk_token="?"))
    tokenizer.save(str(changed_copy(tmp_path, "bert") / "tokenizer.json"))
    loaded = ide.load_model(tmp_path)
    problem = make_problem(loaded, 3, 66)
    # They are measured on the last tenth of the speeches, of which nothing is chosen.
    speeches = halves_of_speeches(ide.tasks.shakespeare())
    first, end = len(speeches) * 9 // 10, len(speeches) - 1
    pairs = [speeches[i] for i in np.linspace(first, end, 66).astype(int)]
    texts = [x for half in zip(*pairs, strict=True) for x in half]
    context = loaded.model.inputs.context
    expected = loaded.tokenizer.encode_batch(texts, context)
    np.testing.assert_array_equal(problem.held_out.tokens, expected.tokens)
    # Another draw has other calibration samples, in pairs, and the same to measure on.
    other = make_problem(loaded, 4, 66, draw=1)
    np.testing.assert_array_equal(other.held_out.tokens, problem.held_out.tokens)
    texts = [{x.tobytes() for x in y.calibration.tokens[:, :20]} for y in (problem, other)]
    assert not texts[0] & texts[1]
    # Calibration has both halves of a speech after each other, the rest all firsts before.
    units, losses = unit_means(other.calibration, other.calibration_losses)
    np.testing.assert_allclose(losses, entropies_of_pairs(units[::2], units[1::2]), rtol=1e-6)
    units, losses = unit_means(problem.held_out, problem.losses)
    first, second = units[:66], units[66:]
    groups = [entropies_of_pairs(first[x], second[x]) for x in (slice(64), slice(64, 66))]
    np.testing.assert_allclose(losses, np.concatenate(groups), rtol=1e-6)


def test_a_text_is_measured_on_its_last_tenth(tmp_path):
    config = stub.config("model.operators=[damping]", **stub.tree_of_text(tmp_path))
    loaded = ide.load_model(stub.start_run(config, tmp_path).path)
    context = loaded.model.inputs.context
    text = "the cat " * 90 * context + "dogs " * 16 * context
    problem = make_problem(loaded, 8, 4, text=text)
    parts = problem.calibration, problem.held_out
    words = [{loaded.tokenizer.decode(x) for x in np.asarray(part)} for part in parts]
    assert not any("dog" in x for x in words[0])
    assert all("dog" in x for x in words[1])
    other = make_problem(loaded, 8, 4, draw=1, text=text)
    np.testing.assert_array_equal(other.held_out, problem.held_out)
    assert not np.array_equal(other.calibration, problem.calibration)
