"""One set of weights solved by several schemes, for tasks of several kinds."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import ROOT, fast_first

from ide_transformer.studies.measure import Measured, measure, solved
from ide_transformer.studies.schemes.solving import _kept, data_of
from ide_transformer.training import load_config
from ide_transformer.training.build import build_start


SMALL = ["model.width=8", "model.heads=2", "model.depth=2"]


def measured(config):
    """The measurement of untrained weights, their model and its batch, and the loss of the task
    in training."""
    task, model, _ = build_start(config)
    batch = next(task.held_out(4))
    data = data_of(batch, task.loss, solved(model, batch.inputs)[0])
    return measure(model, data, 2), model, batch, float(task.loss(model, batch).loss)


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
    config = load_config(ROOT / f"configs/{name}.yaml", overrides)
    found, _, _, loss = measured(config)
    assert found.loss == pytest.approx(loss, rel=1e-5) and loss > 0
    assert found.error == pytest.approx(0, abs=1e-6) and found.evaluations == 2


def test_the_loss_of_a_text_is_the_cross_entropy_of_its_tokens():
    found, model, batch, _ = measured(load_config(ROOT / "configs/quick.yaml", SMALL))
    losses = optax.softmax_cross_entropy_with_integer_labels(model(batch.inputs), batch.targets)
    assert isinstance(losses, jax.Array) and losses.shape == np.shape(batch.targets)
    assert found.loss == pytest.approx(float(losses.mean()), rel=1e-5)


def test_a_damaged_measurement_is_made_again(tmp_path):
    file, made = (
        tmp_path / "row.json",
        Measured(jnp.zeros(1), 2.0, np.nan, np.ones(3), 1.5, 0.5),
    )
    row = {"code": "a", "error": None, "loss": None, "field_evaluations": 2.0}
    row |= {"milliseconds": 1.5, "mebibytes": 0.5}
    for content in (b"", b"[]", b"\xff", b'{"error": 1.0}'):
        file.write_bytes(content)
        assert _kept(file, "a", lambda: made) == row == json.loads(file.read_text())
    assert _kept(file, "b", lambda: pytest.fail()) == row
