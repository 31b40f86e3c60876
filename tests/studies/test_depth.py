"""The study of coarser and finer solves: its tasks, rules, rankings, budgets and script."""

import functools as ft
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as tk
from golden.copies import changed_copy
from helpers import GOLDEN, drawn
from layered_models import CALIBRATION, HELD_OUT, LAYERS, model_of
from running import run_here

import ide_transformer as ide
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
from ide_transformer.tasks import Batch, InstanceCrossEntropy, PHop, RelativeError
from ide_transformer.training import LoadedModel


def test_a_checkpoint_without_data_imitates_its_native_outputs(tmp_path):
    loaded = ide.load_model(GOLDEN / "vit")
    problem = make_problem(loaded, 3, 2)
    assert problem.loss == "distance from the native outputs, random images"
    assert problem.sizes == (3, 2)
    outputs, losses = ide.compiled(loaded.model)(problem.held_out), jax.jit(problem.losses)
    assert np.abs(losses(outputs)).max() < 1e-12
    assert np.allclose(losses(1.1 * np.asarray(outputs)), 0.01)
    with pytest.raises(ide.InputError, match=r"EncodedInputs.*or a model of images"):
        make_problem(ide.load_model(GOLDEN / "whisper"), 3, 2)
    (changed_copy(tmp_path, "bert") / "tokenizer.json").write_text("{")
    with pytest.raises(ide.InputError, match="is not a tokenizer"):
        make_problem(ide.load_model(tmp_path), 3, 2)


def test_the_loss_of_a_text_encoder_is_that_of_finding_other_halves(tmp_path):
    """Among those of 64 speeches, the last group with fewer."""
    letters = {chr(60 + i): i for i in range(61)}
    tokenizer = tk.Tokenizer(tk.models.BPE(letters, [], unk_token="?"))
    tokenizer.save(str(changed_copy(tmp_path, "bert") / "tokenizer.json"))
    loaded = ide.load_model(tmp_path)
    problem = make_problem(loaded, 3, 66)
    mask = np.asarray(problem.held_out.mask)
    states = np.asarray(drawn((*mask.shape, 5), seed=6))
    means = (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    units = means / np.linalg.norm(means, axis=1, keepdims=True)
    expected = []
    for i in range(66):
        group = range(64) if i < 64 else (64, 65)
        scores = {j: 20 * units[i] @ units[66 + j] for j in group}
        expected.append(np.log(sum(map(np.exp, scores.values()))) - scores[i])
    np.testing.assert_allclose(jax.jit(problem.losses)(states), expected, rtol=1e-6)


def test_losses_of_samples_weigh_them_by_their_targets():
    """Their mean is the loss of the task; targets that are not counted do not change them."""
    targets = np.array([[1, 0, 2], [-1, 2, -1], [-1] * 3])
    logits = np.asarray(drawn((3, 3, 4), seed=3))
    found = jax.jit(ft.partial(sample_losses, InstanceCrossEntropy()))(logits, targets)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    each = -np.log(np.take_along_axis(probabilities, np.maximum(targets, 0)[..., None], -1))
    totals = np.where(targets == -1, 0, each[..., 0]).sum(axis=1)
    np.testing.assert_allclose(found, totals * 3 / 4, rtol=1e-12)


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
    np.testing.assert_allclose(jax.jit(made.losses)(made.held_out), 0.5, rtol=1e-12)
    with pytest.raises(ide.InputError, match="run are functions at common points"):
        problem_of(Functions(ide.TokenDomain.uniform(7)))
    task = PHop(16)
    made = problem_of(task)
    # The calibration is a batch that training has not seen.
    np.testing.assert_array_equal(made.calibration, task.batch(3, 3, 0).inputs)
    logits = np.asarray(drawn((5, 16, task.vocabulary), seed=5))
    targets = next(task.held_out(5, samples=5)).targets
    losses, read, loss = jax.jit(
        lambda y: (
            made.losses(y),
            made.read(y, None),
            task.loss.measure(y, jnp.asarray(targets))["loss"].value,
        )
    )(logits)
    assert float(np.mean(losses)) == pytest.approx(float(loss), rel=1e-12)
    assert made.loss == "cross-entropy (nats)"
    # The squared distance of what is read is twice Hellinger's.
    np.testing.assert_allclose(np.sum(np.square(read), axis=-1), 1.0, rtol=1e-12)


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
    methods = {
        **{("native", 4.0): 1.0, ("a", 3.0): 2.0, ("b", 3.0): 3.0, ("rule", 3.0): 2.5},
        **{("failed rule", 3.0): None, ("a", 2.0): 4.0},
    }
    rows = [
        {"method": method, "field_evaluations": evaluations, "loss": loss}
        for (method, evaluations), loss in methods.items()
    ]
    losses = [np.full(3, row["loss"] or np.nan) for row in rows]
    losses[1] = np.array([1.0, 2.0, 3.0])
    sides = dict(ours={"a", "b"}, theirs={"rule", "failed rule"})
    found = compare_budgets(rows, losses, **sides)
    assert len(found) == 1 and found[0]["field_evaluations"] == 3
    assert (found[0]["coarsening"], found[0]["layer_dropping"]) == ("a", "rule")
    assert (found[0]["loss"], found[0]["its_loss"]) == (2.0, 2.5)
    assert found[0]["difference"] == -0.5
    assert abs(found[0]["uncertainty"] - 1 / np.sqrt(3)) < 1e-12
    of_one = [loss[:1] for loss in losses]
    assert compare_budgets(rows, of_one, **sides)[0]["uncertainty"] is None


def losses_of(outputs):
    return jnp.mean(outputs**2, axis=(1, 2))


def test_a_study_of_a_linear_model_by_hand():
    """A layer multiplies the state by `1 - c`; with more steps by `(1 - c / k)^k`."""
    rates = np.array([0.1, 0.3, 0.2])
    model = ide.LanguageModel(
        *(5, 4, 4),
        control=ide.PiecewiseConstant((ide.Damping(jnp.asarray(rates)),)),
        constraint=ide.Free(),
        discretization=ide.Discretization(diffrax.Euler()),
        key=jax.random.key(0),
    )
    samples = np.random.default_rng(0).integers(0, 5, (2, 3, 4))
    said = []
    problem = Problem(*samples, losses_of)
    study = measure_coarsening(model, problem, refinements=(2,), tolerances=(), say=said.append)
    assert said[0] == "layers" and said[-1] == "refined, 2 steps"
    rows = {row["method"]: row for row in study.rows}
    read_out = jax.jit(lambda u: model.outputs(u))

    def outputs(u):
        return np.asarray(read_out(u))

    u0 = np.asarray(model.inputs.embed(samples[1])[0])
    native = outputs(u0 * np.prod(1 - rates))

    def check(row, factor, evaluations):
        found = outputs(u0 * factor)
        change = np.mean(found**2 - native**2, axis=(1, 2))
        assert row["loss"] == pytest.approx(np.mean(found**2), rel=1e-9)
        expected = {
            "change": change.mean(),
            "uncertainty": change.std(ddof=1) / np.sqrt(3),
            "error": np.linalg.norm(found - native) / np.linalg.norm(native),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-15), name
        assert row["field_evaluations"] == evaluations

    check(rows["native"], np.prod(1 - rates), 3)
    for method in {**RULES, **NEEDED}:
        layers = list(map(int, rows[method]["layers"].split()))
        assert len(layers) == 2
        check(rows[method], np.prod(1 - rates[layers]), 2)
    assert rows["least estimate dropped"]["layers"] == "1 2"
    finer = [np.prod((1 - rates / k) ** k) for k in (2, 4)]
    check(rows["refined"], finer[0], 6)
    check(rows["extrapolated"], 2 * finer[1] - finer[0], 18)
    for row, off in zip(study.layers, rates, strict=True):
        without = outputs(u0 * np.prod(1 - rates) / (1 - off))
        damage = np.linalg.norm(without - native) / np.linalg.norm(native)
        assert row["damage"] == pytest.approx(damage, rel=1e-6)
    assert study.correlations["estimate"] == pytest.approx(1)
    (budget,) = study.budgets
    ours = [rows[x] for x in ("coarsened", "dropped", "merged", *NEEDED)]
    assert budget["field_evaluations"] == 2
    assert budget["loss"] == min(row["loss"] for row in ours)
    assert budget["its_loss"] == min(rows[x]["loss"] for x in RULES)


@pytest.mark.heavy
def test_adaptive_rows_differ_and_say_where_a_solve_failed():
    """Both tolerances were met by the first try in every interval."""
    study = _Study(model_of(), Problem(CALIBRATION, HELD_OUT, losses_of))
    for tolerance in (10.0, 5.0):
        study.adapt(tolerance)
    _, first, second = study.rows
    assert first["layers"] == "tolerance 10" and first["field_evaluations"] == 5 * LAYERS
    assert second["field_evaluations"] > first["field_evaluations"]
    assert second["layers"] != "tolerance 5" and second["error"] != first["error"]
    study = _Study(model_of("post-norm"), Problem(CALIBRATION, HELD_OUT, losses_of))
    study.adapt(1e-6)
    assert study.rows[-1]["loss"] is None and study.rows[-1]["error"] is None


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
