"""Each optimizer against its formula in NumPy, schedules, and groups."""

import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ide_transformer as ide
from ide_transformer.training import OptimizerConfig, build_optimizer, learning_rate
from ide_transformer.training.steps.optimizer import orthogonalized, path_of
from tests.helpers import built, fast_first
from tests.training import stub


RATE, DECAY, BETA1, BETA2 = 0.01, 0.3, 0.8, 0.95
RANDOM = np.random.default_rng(0)
START = {"matrix": RANDOM.normal(size=(3, 4)), "vector": RANDOM.normal(size=4)}
DECAYS = {"matrix": DECAY, "vector": 0.0}
GRADIENTS = [{k: RANDOM.normal(size=x.shape) for k, x in START.items()} for _ in range(5)]


def settings(schedule="constant", **keys):
    options: dict[str, Any] = dict(learning_rate=RATE, warmup=0, weight_decay=DECAY, clip=1e9)
    if schedule != "constant":
        options["final_learning_rate"] = 1e-4
    return OptimizerConfig(schedule=schedule, beta1=BETA1, beta2=BETA2, **(options | keys))


def descended(optimizer, weights=START, gradients=GRADIENTS):
    weights = jax.tree.map(jnp.asarray, weights)
    state, history = jax.jit(optimizer.init)(weights), []

    @jax.jit
    def update(gradient, state, weights):
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state

    for gradient in gradients:
        weights, state = update(gradient, state, weights)
        history.append((weights, state))
    return history


def test_the_default_is_adamw_with_a_cosine_to_the_bit():
    schedule = optax.warmup_cosine_decay_schedule(1e-3 / 3, 1e-3, 2, 20, 1e-4)
    mask = {"matrix": True, "vector": False}
    by_hand = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(schedule, b1=0.9, b2=0.99, weight_decay=0.1, mask=mask),
    )
    ours = descended(build_optimizer(OptimizerConfig(warmup=2), 20))[-1]
    assert eqx.tree_equal(ours, descended(by_hand)[-1])


def test_lion_is_its_formula():
    history = descended(build_optimizer(settings(kind="lion"), 10))
    x, m = dict(START), {name: np.zeros(()) for name in START}
    for gradient, (weights, _) in zip(GRADIENTS, history, strict=True):
        for name, g in gradient.items():
            direction = np.sign(BETA1 * m[name] + (1 - BETA1) * g)
            m[name] = BETA2 * m[name] + (1 - BETA2) * g
            x[name] = x[name] - RATE * (direction + DECAYS[name] * x[name])
            np.testing.assert_allclose(weights[name], x[name], rtol=1e-9, atol=1e-12)


def small_weights(**model):
    weights = eqx.filter(stub.model_of(stub.config(model=model)), eqx.is_inexact_array)
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x, float)), weights)


def by_path(tree):
    return {path_of(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def newton_schulz(matrix):
    """Five steps of the iteration of Jordan et al. 2024 towards U Vᵀ."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        product = x @ x.T
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x


def test_muon_makes_each_layer_orthogonal_by_itself():
    config = settings(kind="muon", momentum=0.9)
    weights = small_weights(bias=True)
    numbers = np.random.default_rng(1)
    gradient = jax.tree.map(lambda x: numbers.normal(size=x.shape), weights)
    gradients = [gradient, jax.tree.map(lambda x: x**3, gradient)]
    (_, _), (after, _) = descended(build_optimizer(config, 10), weights, gradients)
    before, after, *gradients = map(by_path, (weights, after, *gradients))
    marks = by_path(orthogonalized(weights))
    assert {path for path, mark in marks.items() if mark} == {
        *(f"control.blocks.0.{x}.weight" for x in ("query", "key", "value", "output")),
        *("control.blocks.1.inner.weight", "control.blocks.1.outer.weight"),
    }
    for path, mark in marks.items():
        steps = [g[path] for g in gradients]
        if not mark:
            # Matrices decay, and vectors do not.
            decay = DECAY if path in ("inputs.embedding", "inputs.positions") else 0.0
            x, m, v = np.asarray(before[path]), 0.0, 0.0
            for step, g in enumerate(steps, 1):
                m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
                size = np.sqrt(v / (1 - BETA2**step)) + 1e-8
                x = x - RATE * (m / (1 - BETA1**step) / size + decay * x)
            np.testing.assert_allclose(after[path], x, rtol=1e-8, atol=1e-12)
            continue
        for layer in range(2):
            x, m = np.asarray(before[path][layer]), 0.0
            for step, g in enumerate((np.asarray(step[layer]) for step in steps), 1):
                m = 0.9 * m + 0.1 * g
                ahead = 0.9 * m / (1 - 0.9 ** (step + 1)) + 0.1 * g / (1 - 0.9**step)
                size = 0.2 * max(x.shape) ** 0.5
                x = x - RATE * (size * newton_schulz(ahead) + DECAY * x)
            np.testing.assert_allclose(after[path][layer], x, rtol=1e-6, atol=1e-9)


def test_muon_leaves_depthwise_convolutions_alone():
    def block(key):
        return (ide.ConvolutionalAttention(4, heads=2, dimension=2, key=key),)

    control = built(lambda: ide.PiecewiseConstant.build(block, 2, key=jax.random.key(0)))
    marks = by_path(orthogonalized(eqx.filter(control, eqx.is_inexact_array)))
    names = {path.rpartition("blocks.")[2] for path, mark in marks.items() if mark}
    assert names and not any("convolution" in x for x in names), names


def test_schedules():
    decay = ft.partial(settings, "warmup_stable_decay")
    for options, expected in (
        (settings(warmup=3), [0.25, 1, 1, 1]),
        (decay(warmup=3, decay=0.5), [0.25, 1, 0.208, 0.01]),
        (decay(decay=1.0), [1, 0.505, 0.109, 0.01]),
        (settings("cosine"), [1, 0.505, 0.034227, 0.01]),
    ):
        actual = [
            np.asarray(learning_rate(options, 20)(step)) / RATE for step in (0, 10, 18, 20)
        ]
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


@pytest.mark.parametrize("kind", fast_first(1, ["adamw", "muon"]))
def test_a_factor_scales_the_whole_update_of_its_group(kind):
    weights = small_weights()
    gradient = jax.tree.map(lambda x: np.asarray(x) + 0.1, weights)
    groups = {"control": 0.5, "control.*.value": 2.0, "inputs.embedding": 0.0}
    rules = [build_optimizer(settings(kind=kind, groups=x), 10) for x in ({}, groups)]

    @jax.jit
    def updates(gradient, weights):
        return [rule.update(gradient, rule.init(weights), weights)[0] for rule in rules]

    plain, scaled = map(by_path, updates(gradient, weights))
    factors = {"control.blocks.0.value.weight": 2.0, "inputs.embedding": 0.0}
    for path, x in plain.items():
        factor = factors.get(path, 0.5 if path.startswith("control") else 1.0)
        np.testing.assert_allclose(scaled[path], factor * x, rtol=1e-6, atol=1e-15)
    # What has the factor 0 stays to the bit.
    history = descended(rules[1], weights, [gradient] * 9)
    frozen, before = history[-1][0].inputs.embedding, weights.inputs.embedding
    assert np.array_equal(frozen, before)
