"""The compiled training step: traced once, in low precision, and what it needs of memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ide_transformer as ide
from ide_transformer.tasks import Batch, CrossEntropy, LanguageTask
from ide_transformer.training import (
    Config,
    build_model_of_size,
    run,
    step as step_module,
    train,
    with_training,
)
from ide_transformer.training.config import ModelConfig, TrainingConfig
from ide_transformer.training.sizes import describe_memory, kept_bytes, size_bytes


SIZES = ModelConfig(width=16, heads=2, depth=12, context=8)
TOKENS = np.random.default_rng(0).integers(0, 20, (4, 9)).astype(np.int32)
BATCH = Batch(TOKENS[:, :-1], TOKENS[:, 1:])


def make_model(**training):
    config = Config(model=SIZES, training=TrainingConfig(**training))
    model = build_model_of_size(config, {"vocabulary": 20}, jax.random.key(0))
    model = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model
    )
    return with_training(model, config.training)


def gradient(model):
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(weights):
        return CrossEntropy()(eqx.combine(weights, static), BATCH).objective

    return weights, jax.value_and_grad(loss)


def test_low_precision_is_that_of_the_products_alone():
    weights_low, rounded = gradient(make_model(compute_dtype="bfloat16"))
    lines = str(jax.make_jaxpr(rounded)(weights_low)).splitlines()
    products = [line for line in lines if "dot_general" in line]
    assert any("bf16" in line for line in products)
    loss_low, gradient_low = jax.eval_shape(rounded, weights_low)
    assert loss_low.dtype == jnp.float32
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(gradient_low))


@pytest.mark.heavy
def test_low_precision_moves_loss_and_gradient_a_little():
    weights, exact = gradient(make_model())
    weights_low, rounded = gradient(make_model(compute_dtype="bfloat16"))
    (loss, by_weights), (loss_low, by_weights_low) = exact(weights), rounded(weights_low)
    assert 0 < abs(float(loss - loss_low)) < 1e-2
    a, b = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)])
        for g in (by_weights, by_weights_low)
    )
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)


def test_modes_keep_less_the_more_they_recompute():
    model = make_model()
    modes = (ide.Direct(), ide.Recompute(), ide.Recursive(), ide.Recompute(policy=None))
    direct, checkpoint, recursive, nothing = (
        kept_bytes(model, m, CrossEntropy(), BATCH) for m in modes
    )
    assert recursive < nothing < checkpoint < direct
    # One state of each layer, and what is kept outside of the march.
    state = 4 * 8 * 16 * 4
    assert 12 * state <= nothing < 2 * 12 * state


def test_the_memory_of_a_run_is_described():
    model = make_model(gradient="recursive")
    weights, _ = eqx.partition(model, eqx.is_inexact_array)
    state, _ = step_module.initial_state(model, optax.adam(1e-3), jax.random.key(0))
    text = describe_memory(model, state, CrossEntropy(), BATCH, 3 * 2**20)
    assert f"parameters {size_bytes(weights) / 2**20:,.1f} MiB" in text
    assert "gradient recursive 3.0 MiB" in text
    assert "direct keeps about" in text and "recompute keeps about" in text
    assert "keeps" not in describe_memory(model, state, CrossEntropy(), BATCH, 2**19)


def test_a_run_traces_its_step_once(tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be, that is the question.\n" * 40)
    traces = {"step": 0, "evaluation": 0}

    class Counted(CrossEntropy):
        def __call__(self, *arguments, **options):
            traces["step" if "transport" in options else "evaluation"] += 1
            return super().__call__(*arguments, **options)

    monkeypatch.setattr(LanguageTask, "loss", Counted())
    monkeypatch.setattr(run, "describe_memory", lambda *_: "")
    monkeypatch.setattr(run, "plot_run", lambda *_: None)
    config = Config(
        data={"name": "text", "path": text},
        model=ModelConfig(width=8, heads=2, depth=2, context=8),
        optimizer={"warmup": 2},
        training=TrainingConfig(
            steps=12, batch_size=2, log_every=3, evaluate_every=4, checkpoint_every=5, sample=0
        ),
    )
    train(config, runs=tmp_path / "runs")
    # Before anything is written, and when it is compiled.
    assert traces["step"] == 2
    # Full batches, and the rest that does not fill one.
    assert traces["evaluation"] <= 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"gradient": "revrsible"}, "Did you mean reversible"),
        ({"gradient": {"kind": "recursive", "options": {"level": 2}}}, "Did you mean levels"),
        (
            {"gradient": {"kind": "recursive", "options": {"levels": 0}}},
            "levels=0: .* greater than 0",
        ),
    ],
)
def test_a_gradient_mode_that_is_not_known(overrides, message):
    with pytest.raises(ide.InputError, match=message):
        make_model(**overrides)
