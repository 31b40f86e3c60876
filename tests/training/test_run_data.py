"""The data of a run after its training: those with which it began, in its own tokens."""

import json
import math
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from running import run_here
from training import stub
from training.conftest import RUN, TEXT

from ide_transformer import InputError, Mesh, training
from ide_transformer.training.evaluation import check_finite
from ide_transformer.training.folder import new_folder


@pytest.fixture
def evaluated(there, capsys):
    def evaluated(*more, run=RUN, expected=0):
        return run_here(capsys, "evaluate.py", run, *more, expected=expected)

    return evaluated


def test_data_that_changed_are_named(there, evaluated):
    otherwise = "its data are not as they were: data: The character"
    for text, message in [
        (TEXT.replace("wide", "cold"), "its data changed since. Restore"),
        (TEXT.replace("wide", "Wide"), f"{otherwise} 'W'"),
        ("THE QUICK BROWN FOX. " * 99, f"{otherwise} 'T'"),
        (None, "text.txt: there is no such file"),
    ]:
        (there / "text.txt").unlink()
        if text is not None:
            (there / "text.txt").write_text(text)
        assert message in evaluated(expected=2)
        # A table says it too.
        assert message in evaluated("--mesh", "tokens=2,4", expected=2)


def test_named_data_are_taken_in_the_tokens_of_the_run(there, evaluated):
    as_it_was = evaluated()
    assert math.isfinite(float(as_it_was.split()[1]))
    shutil.copy("text.txt", "same.txt")
    assert evaluated("data.path=same.txt").replace("same", "text", 1) == as_it_was
    # The letters that are left would have other numbers in an alphabet of their own.
    for name in ("text.txt", "other.txt"):
        (there / name).write_text(TEXT.replace("a", "e"))
    loss = evaluated("data.path=other.txt").replace("other", "text", 1)
    assert loss == evaluated("data.name=text") != as_it_was
    model, run = training.load_run(RUN)
    loaded = training.LoadedModel(model, run, run.path, run.load_config(), named=True)
    tokens = training.evaluation_task(loaded).tokenizer
    assert tokens.characters == run.load_tokenizer().characters
    (there / "other.txt").write_text(TEXT + "?")
    assert "The character '?'" in evaluated("data.path=other.txt", expected=2)
    said = evaluated("data.name=digits", expected=2)
    assert "the weights are given; only solver.…, data.path, data.options.…" in said


def test_other_texts_of_a_data_set_are_read_in_the_tokens_of_the_run(tmp_path):
    texts = {"one": TEXT, "two": TEXT.replace("w", "e"), "three": TEXT.replace("w", "z")}
    tasks = {}
    for name, text in texts.items():
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"text": text}))
        config = stub.config(data={"name": "dataset", "path": str(path), "validation": 0.2})
        if not tasks:
            task = training.build_task(config)
            run = new_folder(config, tmp_path, task.save, task.fingerprint())
        if name != "three":
            tasks[name] = training.run_task(run, config, named=True)
    with pytest.raises(InputError, match="The character 'z' does not occur"):
        training.run_task(run, config, named=True)
    one, two = (next(tasks[name].held_out(1)).inputs for name in ("one", "two"))
    letters = tasks["one"].tokenizer
    assert letters.decode(one[0]).replace("w", "e") == letters.decode(two[0])
    assert "w" in letters.decode(next(tasks["one"].held_out(99)).inputs.ravel())


def test_windows_of_another_length_and_losses_that_are_none(there):
    loaded = training.load_model(RUN)
    windows = training.evaluation_task(loaded, None, 3).held_out(1)
    assert next(windows).inputs.shape[-1] == 3
    with pytest.raises(InputError, match="longer than the context of 4"):
        training.evaluate_on_meshes(loaded, [Mesh(tokens=5)], samples=1)
    with pytest.raises(InputError, match="learned an embedding of its 4 positions"):
        training.load_model(RUN, ["model.context=8"])
    with pytest.raises(InputError, match=r"it has no config.yaml"):
        training.load_run(".")
    weights, static = eqx.partition(loaded.model, eqx.is_inexact_array)
    broken = eqx.combine(jax.tree.map(lambda x: x * jnp.nan, weights), static)
    with pytest.raises(InputError, match="small: the loss is nan: the outputs"):
        training.evaluate_loss(loaded._replace(model=broken))
    # One mesh of several on which it is none is a result.
    check_finite(loaded, [{"loss": math.nan}, {"loss": 1.0}])
    with pytest.raises(InputError, match="the loss is nan"):
        check_finite(loaded, [{"loss": math.nan}, {"loss": math.nan}])
