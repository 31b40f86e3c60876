"""Options of an evaluation reach what it measures, or are refused; the data of a run are those
with which it began, in its own tokens."""

import math
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from running import run_here
from training import stub
from training.conftest import RUN, TEXT

import ide_transformer as ide
from ide_transformer import InputError, tasks, training
from ide_transformer.training import evaluation
from ide_transformer.training.folder import new_folder


@pytest.fixture
def loaded(monkeypatch):
    """Makes what is evaluated, without a model and a run."""
    build = training.build_task
    monkeypatch.setattr(evaluation, "run_task", lambda run, config, **_: build(config))

    def make(name, **options):
        config = stub.config(data={"name": name, "options": options}, model={"context": 20})
        return training.LoadedModel(None, training.RunFolder("run"), "run", config)

    return make


def test_a_context_that_samples_have_and_one_that_they_have_not(loaded):
    """Each context had a row, all of them measured on the same samples."""
    unsized, parity = loaded("training.mine:Unsized"), loaded("parity", lengths=[1, 4])
    for run, tokens in ((unsized, 6), (parity, 5)):
        assert training.evaluation_task(run).tokens_per_sample == tokens
        with pytest.raises(InputError, match=f"tokens=40: .* have {tokens} tokens"):
            training.evaluation_task(run, tokens=40)
    for run in (loaded("p_hop", hops=1), loaded("burgers_interval", held_out_samples=2)):
        assert training.evaluation_task(run, tokens=12).tokens_per_sample == 12
    with pytest.raises(InputError, match=r"part=test: Unsized\.held_out gives the samples of"):
        evaluation.check_part(training.evaluation_task(unsized), "test")
    evaluation.check_part(tasks.PHop(16, hops=1), "test", 7)


PARITY = {
    "data": {"name": "parity", "options": {"lengths": [1, 4]}},
    "model": {"options": {"learned_positions": False}, "context": 5},
    "control": "tied",
}
WORDS = {"data": {"name": "word_problem", "options": {"lengths": [1, 4], "degree": 2}}}
LONGER = ("data.options.held_out_lengths=[5,8]", "model.context=9")


def test_what_does_not_fit_the_weights_is_refused(tmp_path):
    for sections, override, message in (
        (PARITY, LONGER[0], r"model\.context=5 is too short: .* Set model\.context=9"),
        (PARITY, "data.name=addition", r"data\.name: the weights are given; only solver"),
        (WORDS, "data.options.degree=3", r"vocabulary=6.* trained for vocabulary=2"),
    ):
        config = stub.config(**sections)
        run = new_folder(config, tmp_path, training.build_task(config).save)
        with pytest.raises(InputError, match=message):
            training.load_model(run.path, [override])


@pytest.mark.heavy
def test_a_trained_model_on_longer_inputs(tmp_path):
    run = stub.train(tmp_path, **PARITY)
    loaded = training.load_model(run.path, LONGER)
    batch = next(training.evaluation_task(loaded).held_out(16, 16))
    assert batch.inputs.shape == (16, 9)
    (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(horizon=5.0)], samples=16)
    model = loaded.model.on(ide.Mesh(horizon=5.0))
    loss = eqx.filter_jit(training.build_task(loaded.config).loss)(model, batch).loss
    assert row["evaluations"] == 5 and row["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_data_are_those_of_the_run_or_are_named_and_in_its_tokens(there, capsys):
    def evaluated(*more, expected=0):
        return run_here(capsys, "evaluate.py", RUN, *more, expected=expected)

    as_it_was = evaluated()
    shutil.copy("text.txt", "same.txt")
    assert evaluated("data.path=same.txt").replace("same", "text", 1) == as_it_was
    # The letters that are left would have other numbers in an alphabet of their own.
    for name in ("text.txt", "other.txt"):
        (there / name).write_text(TEXT.replace("a", "e"))
    loss = evaluated("data.path=other.txt").replace("other", "text", 1)
    assert loss == evaluated("data.name=text") != as_it_was
    assert "its data changed since. Restore" in evaluated(expected=2)
    (there / "text.txt").write_text(TEXT + "?")
    for more in ((), ("--mesh", "tokens=2,4"), ("data.path=text.txt",)):
        assert "The character '?'" in evaluated(*more, expected=2)


def test_windows_of_another_length_and_losses_that_are_none(there):
    loaded = training.load_model(RUN)
    windows = training.evaluation_task(loaded, None, 3).held_out(1)
    assert next(windows).inputs.shape[-1] == 3
    with pytest.raises(InputError, match="longer than the context of 4"):
        training.evaluate_on_meshes(loaded, [ide.Mesh(tokens=5)], samples=1)
    weights, static = eqx.partition(loaded.model, eqx.is_inexact_array)
    broken = eqx.combine(jax.tree.map(lambda x: x * jnp.nan, weights), static)
    with pytest.raises(InputError, match="small: the loss is nan: the outputs"):
        training.evaluate_loss(loaded._replace(model=broken))
    # One mesh of several on which it is none is a result.
    evaluation.check_finite(loaded, [{"loss": math.nan}, {"loss": 1.0}])
