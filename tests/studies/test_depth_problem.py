"""Tasks of the study of depth for models of every kind."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from golden.copies import changed_copy
from helpers import GOLDEN, drawn

import ide_transformer as ide
from ide_transformer.studies import depth_problem
from ide_transformer.studies.depth_problem import make_problem, sample_losses
from ide_transformer.tasks import Batch, CrossEntropy, InstanceCrossEntropy, PHop, RelativeError
from ide_transformer.tasks.losses import UNCOUNTED
from ide_transformer.training import LoadedModel


@pytest.mark.parametrize(
    "family, inputs",
    [
        ("vit", "images"),
        pytest.param("bert", "tokens", marks=pytest.mark.heavy),
        pytest.param("llama", "tokens", marks=pytest.mark.heavy),
    ],
)
def test_a_checkpoint_without_data_imitates_its_native_outputs(family, inputs):
    loaded = ide.load_model(GOLDEN / family)
    problem = make_problem(loaded, 3, 2)
    assert problem.loss == f"distance from the native outputs, random {inputs}"
    assert len(problem.calibration) == 3 and len(problem.held_out) == 2
    outputs = loaded.model(problem.held_out)
    assert np.abs(problem.losses(outputs)).max() < 1e-12
    assert np.allclose(problem.losses(1.1 * outputs), 0.01)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    loaded = ide.load_model(GOLDEN / "whisper")
    with pytest.raises(ide.InputError, match=r"EncodedInputs.*or a model of images"):
        make_problem(loaded, 3, 2)
    folder = changed_copy(tmp_path, "bert")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ide.InputError, match="is no tokenizer"):
        make_problem(ide.load_model(folder), 3, 2)


@pytest.mark.heavy
def test_losses_of_samples_are_those_of_the_task():
    """Their mean is its loss; each is the mean over its own targets, weighted by their number.
    Targets that are not counted do not change them."""
    targets = np.array([[1, 0, 2], [UNCOUNTED, 2, UNCOUNTED], [UNCOUNTED] * 3])
    logits = drawn((3, 3, 4), seed=3)
    found = sample_losses(InstanceCrossEntropy(), logits, targets)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    each = -np.log(np.take_along_axis(probabilities, np.maximum(targets, 0)[..., None], -1))
    totals = np.where(targets == UNCOUNTED, 0, each[..., 0]).sum(axis=1)
    np.testing.assert_allclose(found, totals * 3 / 4, rtol=1e-12)
    loss = InstanceCrossEntropy().measure(logits, jnp.asarray(targets))["loss"].value
    assert float(jnp.mean(found)) == pytest.approx(float(loss), rel=1e-12)
    # One label for a sample.
    found = sample_losses(CrossEntropy(), logits[:, 0], targets[:, 1] + 1)
    chosen = probabilities[[0, 1, 2], 0, targets[:, 1] + 1]
    np.testing.assert_allclose(found, -np.log(chosen), rtol=1e-12)
    # Functions.
    values = drawn((3, 5), seed=4)
    found = sample_losses(RelativeError(), 1.1 * values, values)
    np.testing.assert_allclose(found, 0.1, rtol=1e-12)


def run_of(monkeypatch, task, model: Any = None):
    """A run of a task, of which the problem reads no more than its configuration."""
    monkeypatch.setattr(depth_problem, "evaluation_task", lambda loaded: task)
    config = SimpleNamespace(training=SimpleNamespace(steps=3, seed=0))
    run: Any = SimpleNamespace(load_config=lambda: config)
    return LoadedModel(model, run, Path("run"))


@pytest.mark.heavy
def test_a_run_is_measured_by_the_loss_of_its_task(monkeypatch):
    task = PHop(16)
    made = make_problem(run_of(monkeypatch, task), 3, 5)
    targets = next(task.held_out(5, samples=5)).targets
    logits = drawn((5, 16, task.vocabulary), seed=5)
    loss = task.loss.measure(logits, jnp.asarray(targets))["loss"].value
    assert float(jnp.mean(made.losses(logits))) == pytest.approx(float(loss), rel=1e-12)
    assert made.loss == "cross-entropy (nats)" and made.read is not None


def test_runs_of_functions_have_their_error(monkeypatch):
    class Functions(PHop):
        loss = RelativeError()

        def __init__(self, domain=None):
            self.context, self.domain = 7, domain

        def draw(self, number, random, *, held_out):
            values = random.normal(size=(number, self.context))
            inputs = values if self.domain is None else ide.Field(values, self.domain)
            return Batch(inputs, 2 * values)

        def held_out(self, size, samples=None, part="validation"):
            yield self.draw(size, np.random.default_rng(0), held_out=True)

    made = make_problem(run_of(monkeypatch, Functions()), 3, 5)
    assert made.loss == "relative error" and made.read is None
    np.testing.assert_allclose(made.losses(jnp.asarray(made.held_out)), 0.5, rtol=1e-12)
    points = Functions(ide.TokenDomain.uniform(7))
    with pytest.raises(ide.InputError, match="run are functions at points that all"):
        make_problem(run_of(monkeypatch, points), 3, 5)
