"""A run from end to end, what is in its folder and what the scripts make of it; and its step:
the terms of its objective, batches in parts and ahead, low precision."""

import dataclasses
import functools as ft
import json
import math
import threading
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ide_transformer import Damping, training
from ide_transformer.tasks import Batch, CrossEntropy, InstanceCrossEntropy
from ide_transformer.training import loop
from ide_transformer.training.results import plot_run as real_plot_run
from ide_transformer.training.steps import step
from ide_transformer.training.steps.memory import describe_memory
from tests.helpers import ROOT, largest
from tests.running import run_here
from tests.training import stub
from tests.training.conftest import RUN, TEXT


def test_a_run_writes_its_folder_and_can_be_sampled_and_evaluated(folder, end, capsys):
    summary = json.loads((RUN / "summary.json").read_text())
    assert summary["steps"] == 4 and summary["nfe"] == 2.0
    assert 0 < summary["validation_loss"] < 4
    # The characters and 4 positions of width 4; in each of 2 layers 8 matrices of 4 by 4 and
    # a gain; the last gain.
    expected = (len(set(TEXT)) + 4) * 4 + 2 * (8 * 4 * 4 + 4) + 4
    assert summary["parameters"] == expected
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "loss" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    for key in ("gradient_norm", "parameter_norm", "update_norm", "tokens_per_second"):
        assert all(line[key] > 0 for line in logged)
    assert all(line["field_evaluations"] == 2 for line in logged)
    assert [line["step"] for line in lines if "validation_loss" in line] == [2, 4]
    assert logged[-1]["loss"] < logged[0]["loss"]
    run = training.RunFolder(RUN)
    real_plot_run(run, training.run_task(run), end)
    assert {path.name for path in run.plots.iterdir()} == {"loss.png", "state_norm.png"}

    script = ["sample", RUN, "--length", 20, "--seed", 3, "--prompt"]
    text, speed, _ = run_here(capsys, *script, "t").partition("20 tokens in")
    assert text.startswith("t") and len(text) == 22 and speed
    assert "character 'Ж'" in run_here(capsys, *script, "Ж", expected=2)
    output = run_here(capsys, *script, "", "--prompt", "t", expected=2)
    assert "prompt" in output
    output = run_here(capsys, *script, "t", "--length", 10**9, expected=2)
    assert "1,000,000,001" in output
    output = run_here(capsys, *script, "t", "--mesh", "tokens=8", expected=2)
    assert "model.context=8" in output
    arguments = [RUN, RUN, "--json", "both.json"]
    assert "bits per byte" in run_here(capsys, "evaluate", *arguments)
    rows = json.loads(Path("both.json").read_text())
    assert rows[0] == rows[1] and rows[0]["model"] == str(RUN)
    # A character of this text is a byte.
    bits = summary["validation_loss"] / math.log(2)
    for value in (rows[0]["bits_per_byte"], summary["validation_bits_per_byte"]):
        assert value == pytest.approx(bits, rel=1e-5)


def test_bad_input_ends_with_status_2_and_writes_no_result(folder, capsys):
    (RUN / "tokenizer.json").write_text("{")
    Path("own.json").write_text(json.dumps(stub.tree(data={"name": "text", "path": "no.txt"})))
    for message, *command in (
        ("tokenizer.json", "sample", RUN),
        ("smal: ", "sample", "runs/smal"),
        ("it has no config.json", "sample", ROOT),
        ("no.txt", "train", "own.json", "--runs", "others"),
    ):
        assert message in run_here(capsys, *command, expected=2)
    assert not Path("others").exists()


def steps(num_steps, accumulate):
    model = stub.model_of(stub.config("model.operators=[feed_forward]"))
    rule = optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1, momentum=0.9))
    state, static = training.initial_state(model, rule, jax.random.key(0), average=0.9)
    keys = {"accumulate": accumulate, "average": 0.9}
    cost = stub.config("training.costs.transport=0.1").training.costs["transport"]
    loss = ft.partial(InstanceCrossEntropy(), costs={"transport": cost.spec.make()})
    take = training.make_train_step(rule, static, loss, **keys)
    tokens = np.random.default_rng(0).integers(0, 5, (32, 5)).astype(np.int32)
    # A part whose targets are fewer has a smaller share.
    uncounted = (np.arange(32)[:, None] % 4 == 1) | (tokens[:, :-1] > 3)
    batch = Batch(tokens[:, :-1], np.where(uncounted, -1, tokens[:, 1:]))
    weights, metrics = [], {}
    for _ in range(num_steps):
        state, metrics = take(state, batch)
        weights.append(jax.tree.map(np.array, state.weights))
    return state, metrics, weights


def test_parts_of_a_batch_make_the_step_of_the_whole_and_steps_an_average():
    (at_once, metrics, weights), (parts, in_parts, _) = steps(3, 1), steps(3, 4)
    for a, b in zip(jax.tree.leaves(at_once), jax.tree.leaves(parts), strict=True):
        assert a.dtype == b.dtype and np.allclose(a, b, rtol=0, atol=1e-6)
    for name, value in metrics.items():
        assert float(in_parts[name]) == pytest.approx(float(value), abs=1e-6), name
    mean = jax.tree.map(lambda x, y, z: (0.81 * x + 0.9 * y + z) / (0.81 + 0.9 + 1), *weights)
    average = step.weights_of(at_once, "average", 0.9)
    for a, b in zip(jax.tree.leaves(average), jax.tree.leaves(mean), strict=True):
        assert largest(a, b) < 1e-12


def test_an_average_of_constant_weights_is_they_themselves():
    model, rule = Damping(np.float32([0.3, 2.0])), optax.sgd(0.0)
    decay = 1 - 1e-6
    state, _ = training.initial_state(model, rule, jax.random.key(0), average=decay)
    for steps_taken in range(3):
        average = step.weights_of(state, "average", decay)
        for a, b in zip(jax.tree.leaves(average), jax.tree.leaves(state.weights), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=str(steps_taken))
        _, mean = step.moving_average(decay).update(state.weights, state.average)
        state = dataclasses.replace(state, average=mean)


def test_each_step_has_dropout_of_its_own():
    model = stub.model_of(stub.config("model.operators=[feed_forward]", "model.dropout=0.5"))
    rule, batch = optax.sgd(0.0), stub.Stub(4).batch(0, 4, 0)
    state, static = training.initial_state(model, rule, jax.random.key(0))
    take = training.make_train_step(rule, static, CrossEntropy())
    state, first = take(state, batch)
    _, second = take(state, batch)
    assert first["loss"] != second["loss"]


def test_the_memory_of_other_gradient_modes_is_said_where_a_step_needs_much():
    model, batch = stub.model_of(stub.config()), stub.Stub(4).batch(0, 4, 0)
    state, _ = training.initial_state(model, optax.sgd(0.0), jax.random.key(0))
    small, large = (
        describe_memory(model, state, CrossEntropy(), batch, size) for size in (2**20, 2**30)
    )
    assert "direct" not in small and "recursive" not in small
    assert "recompute 1,024.0 MiB (direct about 1,0" in large and "; recursive about" in large


def test_low_precision_is_that_of_the_products_alone():
    config = stub.config("model.operators=[feed_forward]", "training.compute_dtype=bfloat16")
    model = stub.model_of(config).with_precision(config.training.precision)
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)

    @jax.value_and_grad
    def rounded(weights):
        return CrossEntropy()(
            eqx.combine(weights, static), stub.Stub(4).batch(0, 3, 0)
        ).objective

    lines = str(jax.make_jaxpr(rounded)(weights)).splitlines()
    assert any("bf16" in line for line in lines if "dot_general" in line)
    gradient = jax.tree.leaves(jax.eval_shape(rounded, weights))
    assert all(x.dtype == jnp.float32 for x in gradient)


def test_a_run_is_evaluated_in_the_precision_of_its_training(tmp_path):
    run = stub.start_run(stub.config("training.compute_dtype=bfloat16"), tmp_path)
    loaded = training.load_model(run.path)
    assert loaded.model.compute_dtype is None
    assert jnp.dtype(loaded.measured.compute_dtype) == jnp.bfloat16


def test_batches_come_in_order_and_so_does_an_error():
    with loop.prefetch(lambda n: 6 // (5 - n), range(3, 10**9)) as values:
        assert [next(values), next(values)] == [3, 6]
        with pytest.raises(ZeroDivisionError):
            next(values)
    # Others may begin and end threads of theirs at any time.
    assert not any(x.name.startswith("prefetch") for x in threading.enumerate())
