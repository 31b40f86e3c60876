"""The data of a run after its training: those with which it began, in its own tokens."""

import json
import math
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from running import run_here
from training.small_run import TEXT

from ide_transformer import InputError, training
from ide_transformer.training.evaluation import check_finite


@pytest.fixture
def there(whole, tmp_path):
    """A run and its text at another place."""
    origin, _ = whole
    shutil.copytree(origin, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "runs/small/config.yaml"
    config.write_text(config.read_text().replace(str(origin), str(tmp_path)))
    return tmp_path


def evaluated(capsys, there, *more, expected=0):
    return run_here(capsys, "evaluate.py", there / "runs/small", *more, expected=expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("wide", "cold"), "its data changed since. Restore"),
        (
            TEXT.replace("wide", "Wide"),
            "its data are not as they were: data: The character 'W'",
        ),
        (
            "THE QUICK BROWN FOX. " * 99,
            "its data are not as they were: data: The character 'T'",
        ),
        (None, "text.txt: there is no such file"),
    ],
)
def test_data_that_changed_are_named(there, capsys, text, message):
    (there / "text.txt").unlink()
    if text is not None:
        (there / "text.txt").write_text(text)
    assert message in evaluated(capsys, there, expected=2)
    # A table says it too.
    assert message in evaluated(capsys, there, "--mesh", "tokens=4,8", expected=2)


def test_named_data_are_taken_in_the_tokens_of_the_run(there, capsys):
    as_it_was = evaluated(capsys, there)
    assert math.isfinite(float(as_it_was.split()[1]))
    same, other = there / "same.txt", there / "other.txt"
    shutil.copy(there / "text.txt", same)
    # The letters that are left would have other numbers in an alphabet of their own.
    other.write_text(TEXT.replace("a", "e"))
    assert evaluated(capsys, there, f"data.path={same}") == as_it_was
    (there / "text.txt").write_text(other.read_text())
    loss = evaluated(capsys, there, f"data.path={other}")
    assert loss == evaluated(capsys, there, "data.name=text") != as_it_was
    model, run = training.load_run(there / "runs/small")
    task = training.LoadedModel(model, run, run.path, run.load_config(), named=True)
    tokens = training.evaluation_task(task).tokenizer
    assert tokens.characters == run.load_tokenizer().characters
    other.write_text(TEXT + "?")
    assert "The character '?'" in evaluated(capsys, there, f"data.path={other}", expected=2)


@pytest.mark.parametrize("override", ["data.name=digits", "data.validation=0.5"])
def test_the_task_and_its_parts_are_those_of_the_run(there, capsys, override):
    said = evaluated(capsys, there, override, expected=2)
    assert "the weights are given; only solver.…, data.path, data.options.…" in said


def test_other_texts_are_read_in_the_tokens_of_the_run(tmp_path, capsys):
    texts = {"one": TEXT, "two": TEXT.replace("w", "e"), "three": TEXT.replace("w", "z")}
    for name, text in texts.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": text}))
    tree = {
        "name": "small",
        "data": {"name": "dataset", "path": str(tmp_path / "one.jsonl"), "validation": 0.2},
        "model": {"width": 8, "heads": 1, "depth": 1, "context": 8},
        "optimizer": {"warmup": 1},
        "training": {"steps": 2, "batch_size": 4, "sample": 0},
    }
    training.train(training.Config.model_validate(tree), runs=tmp_path / "runs")
    as_it_was = evaluated(capsys, tmp_path)
    assert evaluated(capsys, tmp_path, f"data.path={tmp_path / 'two.jsonl'}") != as_it_was
    said = evaluated(capsys, tmp_path, f"data.path={tmp_path / 'three.jsonl'}", expected=2)
    assert "The character 'z' does not occur" in said


def test_a_loss_that_is_no_number_is_no_result(there):
    loaded = training.load_model(there / "runs/small")
    weights, static = eqx.partition(loaded.model, eqx.is_inexact_array)
    broken = eqx.combine(jax.tree.map(lambda x: x * jnp.nan, weights), static)
    with pytest.raises(InputError, match="small: the loss is nan: the outputs"):
        training.evaluate_loss(loaded._replace(model=broken))
    # One mesh of several on which it is none is a result.
    check_finite(loaded, [{"loss": math.nan}, {"loss": 1.0}])
    with pytest.raises(InputError, match="the loss is nan"):
        check_finite(loaded, [{"loss": math.nan}, {"loss": math.nan}])


def test_the_code_of_each_start_is_recorded(whole, there):
    run = training.RunFolder(there / "runs/small")
    (first,) = run.sources
    run.add_source(first)
    assert run.sources == [first]
    run.add_source("another")
    assert run.sources == [first, "another"] and run.identity and run.data
