"""One set of weights solved by several schemes, for tasks of several kinds."""

import json

import jax
import numpy as np
import optax
import pytest
from helpers import ROOT, fast_first

from ide_transformer.studies.schemes.solving import _measure, _measured_before, _Problem, _state
from ide_transformer.training import load_config
from ide_transformer.training.build import build_start


SMALL = ["model.width=8", "model.heads=2", "model.depth=2"]


def measured(config):
    """The row of untrained weights, the loss of the task in training, and the problem."""
    task, model, _ = build_start(config)
    batch = next(task.held_out(4))
    problem = _Problem(model, batch, task.loss, _state(model, batch.inputs))
    return _measure(problem, model, 2), float(task.loss(model, batch).loss), problem


@pytest.mark.parametrize(
    ("name", "overrides"),
    fast_first(
        1,
        [
            # Targets that are not counted, a text of which not all tokens are there, functions.
            ("beds/p_hop", SMALL),
            ("listops", SMALL),
            ("any_resolution", [*SMALL, "model.modes=8", "data.options.held_out_samples=4"]),
        ],
    ),
)
def test_the_loss_is_that_of_the_task(name, overrides):
    row, loss, _ = measured(load_config(ROOT / f"configs/{name}.yaml", overrides))
    assert row["loss"] == pytest.approx(loss, rel=1e-5) and loss > 0
    assert row["error"] == pytest.approx(0, abs=1e-6) and row["field_evaluations"] == 2


def test_the_loss_of_a_text_is_the_cross_entropy_of_its_tokens():
    row, _, problem = measured(load_config(ROOT / "configs/quick.yaml", SMALL))
    model, (inputs, targets) = problem.model, problem.batch
    losses = optax.softmax_cross_entropy_with_integer_labels(model(inputs), targets)
    assert isinstance(losses, jax.Array) and losses.shape == np.shape(targets)
    assert row["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


def test_a_damaged_measurement_is_made_again(tmp_path):
    row = {"error": None, "field_evaluations": 2.0, "milliseconds": 1.5}
    for content in (b"", b"[]", b"\xff", b'{"error": 1.0}'):
        (tmp_path / "row.json").write_bytes(content)
        assert _measured_before(tmp_path / "row.json") is None
    assert _measured_before(tmp_path / "none.json") is None
    (tmp_path / "row.json").write_text(json.dumps(row))
    assert _measured_before(tmp_path / "row.json") == row
