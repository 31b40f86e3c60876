"""Options of an evaluation reach what it measures, or are refused; the data of a run are those
with which it began; no run that somebody sends runs code of its own without a word."""

import json
import math
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import ide_transformer as ide
from ide_transformer import InputError, training
from ide_transformer.training.folder.run_folder import new_folder
from ide_transformer.training.measure import evaluation
from tests.running import run_here
from tests.training import stub
from tests.training.conftest import RUN, TEXT, config


def test_a_context_that_samples_have_and_one_that_they_have_not(monkeypatch):
    build = training.build_task
    monkeypatch.setattr(evaluation, "run_task", lambda run, config, **_: build(config))

    def run_on(name, **options):
        config = stub.config(data={"name": name, "options": options}, model={"context": 20})
        return training.LoadedModel(None, training.RunFolder("run"), "run", config)

    hops, maze = run_on("p_hop", hops=1), run_on("maze", side=5)
    assert training.evaluation_task(hops, tokens=12).tokens_per_sample == 12
    assert training.evaluation_task(maze).tokens_per_sample == 25
    with pytest.raises(InputError, match=r"tokens=40: .*side=40"):
        training.evaluation_task(maze, tokens=40)


PARITY = {
    "data": {"name": "parity", "options": {"lengths": [1, 4]}},
    "model": {"options": {"learned_positions": False}, "context": 5},
    "control": "tied",
}
WORDS = {"data": {"name": "word_problem", "options": {"lengths": [1, 4], "degree": 2}}}
TOLERANCES = "rtol=1e-3", "atol=1e-3"
LONGER = ("data.options.held_out_lengths=[5,8]", "model.context=9")


def test_what_does_not_fit_the_weights_is_refused(tmp_path):
    for sections, override, message in (
        (PARITY, LONGER[0], r"model\.context=5: .* Set model\.context=9"),
        (
            PARITY,
            "data.name=column_addition",
            r"data\.name: the weights are given; only solver",
        ),
        (WORDS, "data.options.degree=3", r"vocabulary=6.* the model vocabulary=2"),
    ):
        config = stub.config(**sections)
        run = new_folder(config, tmp_path, training.build_task(config).save)
        with pytest.raises(InputError, match=message):
            training.load_model(run.path, [override])


def test_a_model_on_longer_inputs(tmp_path):
    run = stub.start_run(stub.config(**PARITY), tmp_path)
    loaded = training.load_model(run.path, LONGER)
    batch = next(training.evaluation_task(loaded).held_out(16, 16))
    assert batch.inputs.shape == (16, 9)
    (row,) = training.evaluate_on_meshes(loaded, [ide.Mesh(horizon=5.0)], samples=16)
    assert row["evaluations"] == 5


def test_data_are_those_of_the_run_or_are_named_and_in_its_tokens(folder, capsys):
    def evaluated(*more, expected=0):
        return run_here(capsys, "evaluate", RUN, *more, expected=expected)

    as_it_was = evaluated()
    shutil.copy("text.txt", "same.txt")
    assert evaluated("data.path=same.txt").replace("same", "text", 1) == as_it_was
    # The letters that are left would have other numbers in an alphabet of their own.
    for name in ("text.txt", "other.txt"):
        (folder / name).write_text(TEXT.replace("a", "e"))
    of_part = evaluated("data.path=other.txt", "data.validation=0.1")
    assert of_part.replace("other", "text", 1) == evaluated("data.name=text") != as_it_was
    # Another file is measured whole, however it is named, also with a part of the run's data.
    of_all = evaluated("data.path=other.txt", "--part", "test")
    assert (
        "text other.txt, all of it" in of_all and f"samples: {(len(TEXT) - 1) // 4}" in of_all
    )
    given = evaluated("--text", "other.txt")
    assert given.split("\n")[1:] == of_all.split("\n")[1:]
    assert "its data" in evaluated(expected=2)
    (folder / "text.txt").write_text(TEXT + "?")
    for more in ((), ("--mesh", "tokens=2,4"), ("data.path=text.txt",)):
        assert "the character '?'" in evaluated(*more, expected=2)


def test_models_are_compared_on_the_same_tokens(folder, capsys):
    loaded = training.load_model(RUN)
    short = loaded._replace(config=loaded.config.changed("model", context=3))
    rows = evaluation.evaluate_models([loaded, short], samples=5)
    for name, values in dict(tokens=[4, 3], samples=[5, 10], targets=[20, 20]).items():
        assert [row[name] for row in rows] == values
    of_meshes = training.evaluate_on_meshes(
        loaded, [ide.Mesh(tokens=n) for n in (2, 4)], samples=5
    )
    assert of_meshes[0]["targets"] == of_meshes[1]["targets"]
    (folder / "other.txt").write_text(TEXT[7:])
    models = [loaded, training.load_model(RUN, ["data.path=other.txt"])]
    with pytest.raises(InputError, match=r"samples=5: runs/small and .* different places of"):
        evaluation.evaluate_models(models, samples=5)
    assert "text.txt, validation part" in run_here(
        capsys, "evaluate", RUN, RUN, "--samples", 3, "--json", "rows.json"
    )
    for row in json.loads((folder / "rows.json").read_text()):
        assert row["data"] == "text text.txt, validation part"
        assert [row[x] for x in ("tokens", "samples", "targets")] == [4, 3, 12]


def test_windows_of_another_length_and_losses_that_are_none(folder):
    loaded = training.load_model(RUN)
    windows = training.evaluation_task(loaded, None, 3).held_out(1)
    assert next(windows).inputs.shape[-1] == 3
    with pytest.raises(InputError, match="longer than the context of 4"):
        training.evaluate_on_meshes(loaded, [ide.Mesh(tokens=5)], samples=1)
    weights, static = eqx.partition(loaded.model, eqx.is_inexact_array)
    broken = eqx.combine(jax.tree.map(lambda x: x * jnp.nan, weights), static)
    with pytest.raises(InputError, match="small: the loss is nan: the outputs"):
        training.evaluate_loss(loaded._replace(model=broken))
    adaptive = training.load_model(RUN, [f"solver.{x}" for x in ("kind=tsit5", *TOLERANCES)])
    with pytest.raises(InputError, match="adaptive steps"):
        evaluation.check_finite(adaptive, [{"loss": math.nan}])
    # One mesh of several on which it is none is a result.
    evaluation.check_finite(loaded, [{"loss": math.nan}, {"loss": 1.0}])


def test_a_leak_that_was_trained_is_refused(folder):
    tree = config(name="seen", model={"operators": ["tests.training.mine:Ahead"]})
    run = stub.start_run(tree, RUN.parent)
    with pytest.raises(ide.InputError, match="operator 0, Ahead"):
        training.load_run(run.path, trust=True)
