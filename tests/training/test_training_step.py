"""The compiled training step: traced once, in low precision, and what it needs of memory."""

import platform
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from running import run_apart
from training import stub

import ide_transformer as ide
from ide_transformer.tasks import Batch, CrossEntropy
from ide_transformer.training import Config, run, step, with_training
from ide_transformer.training.config import ModelConfig, TrainingConfig
from ide_transformer.training.sizes import describe_memory, kept_bytes, size_bytes


SIZES = ModelConfig(width=16, heads=2, depth=12, context=8)
TOKENS = np.random.default_rng(0).integers(0, 20, (4, 9)).astype(np.int32)
BATCH = Batch(TOKENS[:, :-1], TOKENS[:, 1:])


def make_model(**training):
    config = Config(model=SIZES, training=TrainingConfig(**training))
    model = stub.model_of(config, scale=0.1, vocabulary=20)
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    weights = jax.tree.map(lambda x: np.asarray(x, np.float32), weights)
    return with_training(eqx.combine(jax.device_put(weights), static), config.training)


def gradient(model):
    weights, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(weights):
        return CrossEntropy()(eqx.combine(weights, static), BATCH).objective

    return weights, jax.value_and_grad(loss)


def test_low_precision_is_that_of_the_products_alone():
    weights, rounded = gradient(make_model(compute_dtype="bfloat16"))
    lines = str(jax.make_jaxpr(rounded)(weights)).splitlines()
    assert any("bf16" in line for line in lines if "dot_general" in line)
    assert all(
        x.dtype == jnp.float32 for x in jax.tree.leaves(jax.eval_shape(rounded, weights))
    )


@pytest.mark.heavy
def test_low_precision_moves_loss_and_gradient_a_little():
    weights, exact = gradient(make_model())
    weights_low, rounded = gradient(make_model(compute_dtype="bfloat16"))
    (loss, by_weights), (loss_low, by_weights_low) = (
        *(jax.jit(exact)(weights), jax.jit(rounded)(weights_low)),
    )
    assert 0 < abs(float(loss - loss_low)) < 1e-2
    pairs = zip(jax.tree.leaves(by_weights), jax.tree.leaves(by_weights_low), strict=True)
    difference = optax.tree.norm([x - y for x, y in pairs])
    assert difference < 0.05 * optax.tree.norm(by_weights)


def test_modes_keep_less_the_more_they_recompute_and_a_run_says_so():
    model = make_model(gradient="recursive")
    modes = (ide.Direct(), ide.Recompute(), ide.Recursive(), ide.Recompute(policy=None))
    direct, checkpoint, recursive, nothing = (
        kept_bytes(model, m, CrossEntropy(), BATCH) for m in modes
    )
    assert recursive < nothing < checkpoint < direct
    # One state of each layer, and what is kept outside of the march.
    state = 4 * 8 * 16 * 4
    assert 12 * state <= nothing < 2 * 12 * state
    weights = eqx.filter(model, eqx.is_inexact_array)
    state, _ = step.initial_state(model, optax.adam(1e-3), jax.random.key(0))
    text = describe_memory(model, state, CrossEntropy(), BATCH, 3 * 2**20)
    for said in (f"parameters {size_bytes(weights) / 2**20:,.1f}", "gradient recursive 3.0"):
        assert f"{said} MiB" in text
    assert "direct keeps about" in text and "recompute keeps about" in text
    assert "keeps" not in describe_memory(model, state, CrossEntropy(), BATCH, 2**19)


def test_a_run_traces_its_step_once(tmp_path, monkeypatch):
    traces = {"step": 0, "evaluation": 0}

    class Counted(CrossEntropy):
        def __call__(self, *arguments, **options):
            traces["step" if "costs" in options else "evaluation"] += 1
            return super().__call__(*arguments, **options)

    monkeypatch.setattr(stub.Stub, "loss", Counted())
    monkeypatch.setattr(run, "describe_memory", lambda *_: "")
    stub.train(tmp_path)
    # Before anything is written, and when it is compiled.
    assert traces == {"step": 2, "evaluation": 1}


# A program that computes with 40 MiB, and the fewest pages that a later call of it takes anew.
# On a busy machine some of the first calls still take new ones.
FAULTS = """
import resource, sys, jax, jax.numpy as jnp
from ide_transformer.training.sizes import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
step = jax.jit(lambda x: jnp.sum(jnp.sin(x @ x[:64]) @ x[:64], axis=0))
x = jnp.ones((160_000, 64), dtype=jnp.float32)
faults = []
for _ in range(12):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[1:]))
"""


@pytest.mark.heavy
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is a setting of glibc")
def test_freed_memory_is_kept_for_the_next_step():
    modes = "given", "kept"
    calls = ([sys.executable, "-c", FAULTS, mode] for mode in modes)
    given, kept = (int(run_apart(call).stdout) for call in calls)
    assert kept < 1000 < 9000 < given
