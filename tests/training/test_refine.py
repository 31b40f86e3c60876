"""Progressive depth: runs whose weights are resampled on finer meshes on their way."""

import json
import shutil

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import fast_first
from running import logged

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.training import build
from ide_transformer.training.optimizer import decayed


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40


def config(path, *, control=None, depth=4, model=None, refine=None, **changes):
    refine = {0: 2, 4: 4} if refine is None else refine
    return training.Config.model_validate(
        {
            "name": "finer",
            "data": {"name": "text", "path": path},
            "model": {"width": 8, "heads": 2, "depth": depth, "context": 4, **(model or {})},
            "control": control or {"kind": "piecewise_constant"},
            "optimizer": {"warmup": 1},
            "training": {
                "steps": 8,
                "batch_size": 2,
                "log_every": 1,
                "evaluate_every": 4,
                "evaluate_samples": 8,
                "checkpoint_every": 2,
                "keep": 4,
                "sample": 0,
                "refine": refine,
                **changes,
            },
        }
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    """A run that is refined once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.run, "plot_run", lambda *_: None)
        return training.train(config(text), runs=tmp_path_factory.mktemp("runs"))


def weights_of(model):
    return eqx.filter(model, eqx.is_inexact_array)


def repeated(tree, structure, share):
    """A tree of weights in which each layer is two, with so large a share."""
    layers = jax.tree.map(lambda x: share * np.repeat(x, 2, axis=0), tree.control)
    tree = eqx.tree_at(lambda m: m.control, tree, layers)
    return jax.tree.unflatten(structure, jax.tree.leaves(tree))


def adamw(weights, first, second, g, step, rate):
    """A step of AdamW after clipping, written out: the weights and the two means."""
    weights, g = (jax.tree.map(np.asarray, tree) for tree in (weights, g))
    norm = np.sqrt(sum(float(np.sum(x**2)) for x in jax.tree.leaves(g)))
    g = jax.tree.map(lambda x: x / max(norm, 1.0), g)
    first = jax.tree.map(lambda m, x: 0.9 * m + 0.1 * x, first, g)
    second = jax.tree.map(lambda v, x: 0.99 * v + 0.01 * x**2, second, g)
    a, b = 1 - 0.9 ** (step + 1), 1 - 0.99 ** (step + 1)
    weights = jax.tree.map(
        lambda w, m, v, d: w - rate * (m / a / (np.sqrt(v / b) + 1e-8) + 0.1 * d * w),
        *(weights, first, second, decayed(weights)),
    )
    return weights, first, second


def test_a_run_is_a_chain_of_two(run, text):
    """Against AdamW and the repetition of layers, written out; the schedule goes on."""
    settings = config(text)
    task, model, _ = build.build_start(settings)
    assert model.control.num_intervals == 2 and model.control.interval_length == 2.0
    rate = training.learning_rate(settings.optimizer, 8)
    weights = weights_of(model)
    first = second = jax.tree.map(np.zeros_like, weights)

    @eqx.filter_jit
    def gradient(weights, model, batch):
        static = eqx.filter(model, eqx.is_inexact_array, inverse=True)
        return jax.grad(lambda w: task.loss(eqx.combine(w, static), batch).objective)(weights)

    for step in range(8):
        if step == 4:
            model = model.on(ide.Mesh(intervals=4))
            structure = jax.tree.structure(weights_of(model))
            weights = repeated(weights, structure, 1)
            first, second = (
                repeated(first, structure, 1 / 2),
                repeated(second, structure, 1 / 4),
            )
        g = gradient(weights, model, task.batch(step, 2, 0))
        weights, first, second = adamw(weights, first, second, g, step, float(rate(step)))
    found = weights_of(training.load_run(run.path)[0])
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(weights), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)
    assert found.control.num_intervals == 4 and found.control.interval_length == 1.0


def test_each_step_is_counted_by_its_mesh(run):
    lines = [line["field_evaluations"] for line in logged(run.path) if "loss" in line]
    assert lines == [2.0] * 4 + [4.0] * 4
    assert json.loads(run.summary.read_text())["evaluations"] == 24


@pytest.mark.parametrize("cut", fast_first(1, [4, 2, 6], heavy=0))
def test_a_run_goes_on_to_the_same_bits(run, tmp_path, monkeypatch, capsys, cut):
    """Also from the last step before the mesh is refined; until then it has the coarse one."""
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    other = tmp_path / "finer"
    shutil.copytree(run.path, other)
    (other / "summary.json").unlink()
    for path in (other / "checkpoints").glob("[0-9]*"):
        if int(path.name) > cut:
            shutil.rmtree(path)
    coarse, _ = training.load_run(other)
    assert coarse.control.num_intervals == (2 if cut <= 4 else 4)
    training.resume_run(other)
    assert ("step 4: refined to 4 intervals" in capsys.readouterr().out) == (cut <= 4)
    assert logged(other) == logged(run.path)
    assert eqx.tree_equal(training.load_run(other)[0], training.load_run(run.path)[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(refine={1: 2, 4: 4}), r"training\.refine={1: 2, 4: 4}: the first step must be 0"),
        (dict(refine={0: 2, 4: 4, 3: 8}, depth=8), r"steps \[0, 4, 3\] must increase"),
        (dict(refine={0: 4, 4: 4}), r"numbers of intervals \[4, 4\] must increase"),
        (dict(refine={0: 2, 8: 4}), r"training\.steps=8 does not come to step 8"),
        (dict(refine={0: 2, 4: 8}), r"ends with 8 intervals, but model\.depth is 4"),
        (dict(refine={0: 0, 4: 4}), r"training\.refine\.0"),
        (dict(refine={-1: 2, 4: 4}), r"training\.refine\.-1"),
        (dict(refine={"half": 2}), r"training\.refine\.half"),
        (dict(refine={0: 3, 4: 4}), r"refine=.*3 intervals of PiecewiseConstant .*such as 6"),
        (dict(meshes=[2]), r"training\.meshes draws meshes of one model"),
        (
            dict(control={"kind": "fourier", "options": {"waves": 1}}),
            r"training\.refine={0: 2, 4: 4}: .*each of waves, on num_intervals=2",
        ),
        (
            dict(control={"kind": "training.mine:Fixed"}),
            r"training\.refine={0: 2, 4: 4}: Fixed: its layers are those it has",
        ),
    ],
)
def test_a_refinement_that_cannot_be_is_refused(text, tmp_path, changes, message):
    with pytest.raises((ide.InputError, ValueError), match=message):
        training.train(config(text, **changes), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_steps_are_keys_in_yaml(text, tmp_path):
    path = tmp_path / "finer.yaml"
    path.write_text("training: {steps: 200, refine: {0: 2, 150: 4}}")
    settings = training.load_config(path)
    assert settings.training.refine == {0: 2, 150: 4}
    path.write_text(training.dump_config(settings))
    assert training.load_config(path) == settings
    settings = training.load_config(path, ["training.refine={0: 1, 5: 2, 9: 4}"])
    assert settings.training.refine == {0: 1, 5: 2, 9: 4}
