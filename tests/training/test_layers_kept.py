"""Models that are trained to be solved with some of their layers, and solved so."""

import equinox as eqx
import jax
import numpy as np
import pytest
from helpers import fast_first

import ide_transformer as ide
from ide_transformer import tasks, training
from ide_transformer.training.step import objective


TEXT = "the sea is wide and the night is long and the wind is cold. " * 40
LAYERS = 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    (folder / "text.txt").write_text(TEXT)
    settings = training.Config.model_validate(
        {
            "name": "layers",
            "data": {"name": "text", "path": folder / "text.txt"},
            "model": {
                "width": 8,
                "heads": 2,
                "depth": LAYERS,
                "context": 8,
                "layer_drop": 0.2,
                "std": 0.5,
            },
            "optimizer": {"warmup": 1},
            "training": {"steps": 4, "batch_size": 2, "sample": 0, "exit_loss": 0.5},
        }
    )
    return training.load_model(training.train(settings, runs=folder / "runs").path)


@eqx.filter_jit
def by_hand(model, tokens, layers):
    """The logits after some of the layers, one operator after the other."""
    u, domain = model.embed(tokens)
    for layer in layers:
        for operator in model.control(float(layer)):
            u = u + operator(u, domain)
    return model.outputs(u)


def cross_entropy(logits, targets):
    logits = np.asarray(logits, np.float64)
    chosen = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
    return (np.log(np.exp(logits).sum(-1)) - chosen).mean()


@pytest.mark.heavy
def test_the_objective_has_what_is_read_out_after_each_layer(run):
    settings = run.run.load_config().training
    batch = next(training.evaluation_task(run).held_out(4))
    result = eqx.filter_jit(objective(tasks.CrossEntropy(), settings))(run.model, batch)
    losses = [
        cross_entropy(by_hand(run.model, batch.inputs, range(n)), batch.targets)
        for n in range(1, LAYERS + 1)
    ]
    assert abs(float(result.loss) - losses[-1]) < 1e-5
    expected = losses[-1] + 0.5 * np.mean(losses[:-1])
    assert abs(float(result.objective) - expected) < 1e-5


def test_with_one_layer_there_is_none_before_the_last(run):
    settings = run.run.load_config().training
    batch = next(training.evaluation_task(run).held_out(4))
    model = run.model.on(ide.Mesh(intervals=1))
    result = eqx.filter_jit(objective(tasks.CrossEntropy(), settings))(model, batch)
    assert np.isfinite(result.loss) and result.objective == result.loss


@pytest.mark.parametrize(
    ("mesh", "steps", "layers"),
    fast_first(
        1, [("first", 3, [0, 1, 2]), ("spread", 2, [0, 2]), ("spread", 3, [0, 1, 2])], heavy=0
    ),
)
def test_a_model_is_evaluated_with_some_of_its_layers(run, mesh, steps, layers):
    (row,) = training.evaluate_on_meshes(run, [ide.Mesh(intervals=steps)], layers=mesh)
    losses, sizes = [], []
    for batch in training.evaluation_task(run).held_out(16):
        logits = by_hand(run.model, batch.inputs, layers)
        losses.append(cross_entropy(logits, batch.targets))
        sizes.append(np.size(batch.targets))
    assert row["evaluations"] == steps
    assert abs(row["loss"] - np.average(losses, weights=sizes)) < 1e-5


@pytest.mark.parametrize(
    ("mesh", "steps", "message"),
    [
        ("first", 5, "intervals=5: the model has 4 layers to keep"),
        ("spread", None, "layers=spread: it says which layers a mesh keeps; give intervals"),
    ],
)
def test_layers_that_are_not_there(run, mesh, steps, message):
    with pytest.raises(ide.InputError, match=message):
        training.evaluate_on_meshes(run, [ide.Mesh(intervals=steps)], layers=mesh)


def test_layers_left_out_in_training_are_drawn_from_step_to_step(run):
    assert run.model.random
    batch = next(training.evaluation_task(run).held_out(4))
    model = run.model
    loss = eqx.filter_jit(tasks.CrossEntropy())
    losses = {float(loss(model, batch, jax.random.key(n)).loss) for n in range(8)}
    assert len(losses) > 1
