"""Runs of models of several stages."""

import shutil

import equinox as eqx
import jax
import numpy as np
import pytest
from golden.copies import tensors_of
from helpers import GOLDEN, largest
from running import run_here

import ide_transformer as ide
from ide_transformer import training


pytest.importorskip("sklearn")


def config(steps=2, stages=None, **model):
    first = {"window": 3, "stride": 2, "width": 4, "heads": 1, "depth": 1}
    second = {"width": 8, "solver": "strang", "operators": ["attention", "feed_forward"]}
    sections = {
        "name": "staged",
        "data": {"name": "digits"},
        "model": {
            "kind": "image_stage",
            "heads": 2,
            "depth": 2,
            "operators": ["convolutional_attention", "feed_forward"],
            "class_token": True,
            "stages": [first, second] if stages is None else stages,
            **model,
        },
        "optimizer": {"warmup": 1},
        "training": {
            "steps": steps,
            "batch_size": 4,
            "log_every": 1,
            "checkpoint_every": 1,
            "evaluate_samples": 8,
        },
    }
    return training.Config.model_validate(sections)


def build(settings, key=jax.random.key(0)):
    return training.build_model(settings, training.build_task(settings), key)


def outputs_of(model):
    """Their shape."""
    return eqx.filter_eval_shape(model, np.zeros((8, 8), np.float32))


def test_each_stage_has_what_it_gives_and_else_what_the_model_has():
    model = build(config())
    first, last = model.equations
    assert (first.features, first.control.num_intervals) == (4, 1)
    assert (last.features, last.control.num_intervals) == (8, 2)
    assert [type(stage.solver) for stage in model.equations] == [ide.LieTrotter, ide.Strang]
    assert first.control.blocks[0].heads == 1 and last.control.blocks[0].heads == 2
    assert type(last.control.blocks[0]) is ide.Attention
    assert (first.inputs.grid, last.inputs.grid) == ((4, 4), (2, 2))
    assert (first.inputs.prefix_tokens, last.inputs.prefix_tokens) == (0, 1)
    # Only the last stage reads classes out.
    assert type(first.read_out) is ide.States and first.read_out == ide.States()
    assert outputs_of(model).shape == (10,)


def test_one_stage_alone_is_a_model():
    alone = build(config(stages=[], width=4))
    assert type(alone.inputs) is ide.ImageInputs and alone.inputs.grid == (8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(kind="image_classifier"),
            "model.stages.0: .*options.window: image_classifier has no such option",
        ),
        (dict(stages=[{"stride": 3}]), "model.stages.0: .*a stride of 3 does not divide"),
        (
            dict(stages=[{"stride": 4, "window": 3}]),
            "window=3, .* choose a window of 4 or more",
        ),
        (
            dict(stages=[{"stride": 8, "window": 8}]),
            "stride=2 does not divide a grid of 1 by 1",
        ),
        (dict(stages=[{}, {"heads": 3}]), "model.stages.1: .*heads=3 do not divide"),
        (dict(stages=[{"solver": "strag"}]), "model.stages.0: solver.kind=strag: unknown"),
    ],
)
def test_stages_that_do_not_fit(changes, message):
    with pytest.raises(ide.InputError, match=message):
        outputs_of(build(config(**changes)))


def test_sections_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"model\.stages and model\.basis"):
        config(basis="cosine")
    settings = config().model_dump(mode="json")
    settings["training"]["refine"] = {0: 1, 1: 2}
    with pytest.raises(ValueError, match=r"training\.refine changes all stages alike"):
        training.Config.model_validate(settings)


@pytest.mark.heavy
def test_a_run_is_saved_resumed_and_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(training.run, "plot_run", lambda *_: None)
    run = training.train(config(), runs=tmp_path)
    model, _ = training.load_run(run.path)
    assert len(model.equations) == 2
    # Resumed at its first step, it comes to the same weights.
    saved = eqx.filter(training.load_run(run.path)[0], eqx.is_inexact_array)
    run.summary.unlink()
    shutil.rmtree(run.checkpoints / "2")
    training.train(config(), runs=tmp_path, resume=True)
    again = eqx.filter(training.load_run(run.path)[0], eqx.is_inexact_array)
    assert eqx.tree_equal(saved, again)
    loaded = ide.load_model(run.path, ["solver.kind=heun"])
    (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(intervals=2)], samples=4)
    # Two evaluations a step, in each of two stages.
    assert row["evaluations"] == 8 and np.isfinite(row["loss"])


def test_a_checkpoint_of_images_becomes_a_run_and_comes_back(tmp_path, capsys):
    there, run, back = str(GOLDEN / "cvt"), tmp_path / "cvt", tmp_path / "back"
    run_here(capsys, "convert.py", there, run, "data.name=digits")
    model, expected = training.load_run(run)[0], ide.load_pretrained(there)
    assert eqx.tree_equal(model, expected)
    run_here(capsys, "convert.py", run, back)
    before, after = tensors_of(GOLDEN / "cvt"), tensors_of(back)
    assert before.keys() == after.keys()
    # Queries are stored multiplied by a square root.
    assert all(np.allclose(before[name], after[name], atol=1e-15) for name in before)
    with pytest.raises(ide.InputError, match=r"StageInputs .*data.name=digits"):
        training.import_pretrained(there, "text", tmp_path)


@pytest.mark.heavy
def test_gradient_modes_learn_the_same(thorough):
    ended = []
    others = ("recompute", "recursive") if thorough else ()
    for mode in ("direct", "reversible", *others):
        settings = config().model_dump(mode="json")
        settings["training"]["gradient"] = mode
        settings["solver"]["kind"] = "algebraically_reversible"
        settings["model"]["stages"][1]["solver"] = None
        settings = training.Config.model_validate(settings)
        task = training.build_task(settings)
        model = training.with_training(build(settings), settings.training)
        for stage in model.equations:
            assert type(stage.discretization.gradient).__name__.lower() == mode
        optimizer = training.build_optimizer(settings.optimizer, 2)
        state, static = training.initial_state(model, optimizer, jax.random.key(0))
        step = training.make_train_step(optimizer, static, task.loss)
        for number in range(2):
            state, _ = step(state, task.batch(number, 4, 0))
        ended.append(jax.tree.leaves(state.weights))
    for weights in ended[1:]:
        assert max(map(largest, weights, ended[0])) < 1e-4
