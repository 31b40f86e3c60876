import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH

import ide_transformer as ide


POINTS, MODES = 16, 3


def block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm(jnp.ones(WIDTH))
    attention = ide.Attention(WIDTH, HEADS, key=first, normalization=norm, std=0.3)
    return attention, ide.FeedForward(WIDTH, key=second, normalization=norm, std=0.3)


def operator_model(**options):
    return ide.OperatorModel(
        POINTS,
        WIDTH,
        control=ide.PiecewiseConstant.build(block, 2, key=jax.random.key(1)),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        modes=MODES,
        std=0.5,
        key=jax.random.key(3),
        **options,
    )


def wave(points):
    x = np.arange(points) / points
    return np.cos(2 * np.pi * x) + 0.5 * np.sin(4 * np.pi * x)


@eqx.filter_jit
def outputs_of(model, inputs):
    return model(inputs)


@pytest.fixture(scope="module")
def model():
    return operator_model()


def test_it_is_the_equation_between_two_linear_maps(model):
    a, x = wave(POINTS), np.arange(POINTS) / POINTS
    angles = 2 * np.pi * np.outer(x, [1, 2, 3])
    features = np.concatenate([a[:, None], np.cos(angles), np.sin(angles)], axis=1)
    u0 = features @ np.asarray(model.inputs.embedding.weight)
    domain = ide.TokenDomain(jnp.asarray(x[:, None]))
    equation = ide.Equation(model.control, ide.Free(), domain)
    solve = eqx.filter_jit(ide.solve)
    u1 = np.asarray(solve(equation, jnp.asarray(u0), solver=ide.LieTrotter()).u1)
    centred = u1 - u1.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    expected = normal @ np.asarray(model.read_out.linear.weight)[:, 0]
    np.testing.assert_allclose(outputs_of(model, a), expected, atol=1e-12)


def test_another_grid_gives_the_same_function(model):
    """Sums over a periodic grid converge faster than any power of the number of points."""
    exact = np.asarray(outputs_of(model, wave(256)))
    errors = []
    for points in (16, 32, 64):
        values = outputs_of(model, wave(points))
        errors.append(
            np.abs(np.asarray(values) - exact[:: 256 // points]).max() / np.abs(exact).max()
        )
    assert errors[0] < 0.1 and errors[2] < 1e-4
    assert errors[1] / errors[0] < 0.1 and errors[2] / errors[1] < errors[1] / errors[0]


def test_batches_and_channels(model):
    a = np.stack([wave(POINTS), np.ones(POINTS), np.zeros(POINTS)])
    outputs = outputs_of(model, a.reshape(3, 1, POINTS))
    assert outputs.shape == (3, 1, POINTS)
    np.testing.assert_allclose(outputs[0, 0], outputs_of(model, wave(POINTS)), atol=1e-12)
    two = operator_model(channels=2)
    assert jax.eval_shape(two, jnp.ones((3, POINTS, 2))).shape == (3, POINTS, 2)


def test_it_sees_positions(model):
    a = np.stack([wave(POINTS), np.roll(wave(POINTS), 3)])
    first, second = np.asarray(outputs_of(model, a))
    assert np.abs(np.roll(second, -3) - first).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({}, np.ones(6), r"6 points cannot tell the 3 waves .* at least 7 points"),
        ({}, np.ones(POINTS, int), r"\(16,\) and int"),
        ({}, np.ones(()), r"inputs of shape \(\)"),
        ({"channels": 2}, np.ones((POINTS, 3)), r"\(16, 3\).*channels=2"),
        ({"channels": 2}, np.ones(2), r"\[..., tokens, channels\]"),
    ],
)
def test_inputs_that_do_not_fit(unchecked, options, inputs, message):
    with pytest.raises(ide.InputError, match=message):
        operator_model(**options)(inputs)


def test_more_waves_than_the_grid_can_tell_apart():
    with pytest.raises(ide.InputError, match=r"modes=8 on a grid of points=16; give at most 7"):
        ide.OperatorModel(
            POINTS,
            WIDTH,
            control=ide.Tied((ide.FeedForward(WIDTH, key=jax.random.key(0)),), 1),
            constraint=ide.Free(),
            discretization=ide.Discretization(ide.LieTrotter()),
            key=jax.random.key(0),
        )


def test_functions_at_points_of_their_own_may_have_steps_of_their_own(model):
    domain = ide.TokenDomain.midpoint(POINTS)
    values = np.random.default_rng(0).normal(size=(3, POINTS))
    weighted = domain.padded(np.arange(POINTS) < np.array([[POINTS], [9], [12]]))
    for there in (domain, weighted):
        inputs = ide.Field(jnp.asarray(values), there)
        each = model.with_options(steps_for="sample")
        np.testing.assert_allclose(
            outputs_of(each, inputs), outputs_of(model, inputs), atol=1e-12
        )
