"""Linear maps of the state where layers are left out."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import ide_transformer as ide
from ide_transformer.contrib import (
    hadamard,
    least_error_cut,
    least_squares_map,
    least_turned_inside,
    linear_patch,
    native_target,
    patch_layers,
    transported_map,
)
from ide_transformer.contrib.transported import pulled_back, weighted_map
from tests.helpers import WIDTH, drawn, largest
from tests.layered_models import (
    HELD_OUT,
    LAYERS,
    layer_by_layer,
    mean_over_tokens,
    model_of,
    outputs,
    states_by_hand,
)


TEXT = ide.Text(HELD_OUT, np.arange(8) < np.array([[8], [6], [8], [5]]))


@eqx.filter_jit
def marched_on(model, u, layers):
    """The state after these layers."""
    _, domain = model.embed(HELD_OUT)
    for layer in layers:
        t = jnp.asarray(float(layer))
        block = model.control(t)
        if isinstance(model.mesh.scheme, diffrax.Euler):
            u = u + sum(operator(u, domain) for operator in block)
            continue
        constraint = model.constraint(t)
        for index, operator in enumerate(block):
            u = u + operator(u, domain)
            u = constraint[index].project(u) if isinstance(constraint, tuple) else u
    return u


@pytest.mark.parametrize("name", ["free", "post-norm", "parallel"])
def test_a_patch_maps_the_state_at_the_cut(name):
    model = model_of("free" if name == "parallel" else name)
    if name == "parallel":
        model = model.on(ide.Mesh(solver=diffrax.Euler()))
    matrix = np.eye(WIDTH) + np.asarray(drawn((WIDTH, WIDTH), 3, 0.1))
    patched = patch_layers(model, [1, 2], matrix)
    before = marched_on(model, model.embed(HELD_OUT)[0], [0])
    expected = model.outputs(marched_on(model, before @ matrix, [LAYERS - 1]))
    assert patched.layers == 2 and largest(outputs(patched), expected) < 1e-12
    last = outputs(patch_layers(model, [2, 3], matrix))
    before = marched_on(model, before, [1])
    assert largest(last, model.outputs(before @ matrix)) < 1e-12
    with pytest.raises(ide.InputError, match=r"layers=\[0, 1\]: give neighbours among 1 to 3"):
        patch_layers(model, [0, 1], matrix)


def ends(model, first, last, text=TEXT):
    states = states_by_hand(model, layer_by_layer(range(LAYERS)), text)
    mask = np.asarray(text.mask)
    return [np.asarray(states[2 * n]) for n in (first, last)], mask


def test_scales_of_linear_patch_are_ratios_of_rotated_channels():
    """Per sample, without padding, where the state turns least."""
    model = model_of("attention")
    (x, y), mask = ends(model, 1, 3)
    rotation = scipy.linalg.hadamard(WIDTH) / np.sqrt(WIDTH)
    sizes = [
        [np.mean(np.abs(u[i][mask[i]] @ rotation), axis=0) for i in range(4)] for u in (x, y)
    ]
    scales = np.mean(np.divide(sizes[1], sizes[0]), axis=0)
    expected = rotation @ np.diag(scales) @ rotation.T
    assert largest(linear_patch(model, [1, 2], TEXT), expected) < 1e-12

    def turn(first):
        (u, v), _ = ends(model, first, first + 1)
        cosines = np.sum(u * v, -1) / np.linalg.norm(u, axis=-1) / np.linalg.norm(v, axis=-1)
        return np.mean(1 - cosines[mask])

    first = min((1, 2), key=turn)
    assert least_turned_inside(model, 1, TEXT) == range(first, first + 1)


@pytest.mark.parametrize("size", [1, 2, 12, 16, 48, 896])
def test_hadamard_matrices_are_orthonormal_signs(size):
    matrix = hadamard(size)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(np.abs(matrix), size**-0.5)


def test_a_size_without_a_hadamard_matrix_is_named():
    with pytest.raises(ide.InputError, match="no matrix of size 36 is known here"):
        hadamard(36)


def test_least_squares_are_those_of_the_tokens():
    model = model_of("attention")
    (x, y), mask = ends(model, 1, 3)
    expected = np.linalg.lstsq(x[mask], y[mask], rcond=None)[0]
    assert largest(least_squares_map(model, [1, 2], TEXT), expected) < 1e-8


def test_a_cut_is_where_a_map_can_stand_for_the_layers():
    """Here the last two layers do nothing."""
    model = model_of(scales=(1.0, 1.0, 0.0, 0.0))
    batch = np.random.default_rng(5).integers(11, size=(8, HELD_OUT.shape[1]))
    assert least_error_cut(model, 2, batch) == range(2, 4)


def test_cotangents_are_those_of_the_rest_of_the_march():
    model = model_of("post-norm")
    states = states_by_hand(model, layer_by_layer(range(LAYERS)))
    r, g = pulled_back(
        model, jnp.asarray(2), jnp.asarray(HELD_OUT), mean_over_tokens, jax.random.key(0)
    )
    push = drawn(g.shape, 5)

    def read(size):
        found = model.outputs(marched_on(model, states[4] + size * push, [2, 3]))
        return float(jnp.sum(r * mean_over_tokens(found, None)))

    slope = (read(1e-5) - read(-1e-5)) / 2e-5
    assert abs(float(jnp.sum(g * push)) / slope - 1) < 1e-7


def test_a_weighted_map_is_the_least_squares_of_all_rows():
    """With a metric for each token, which changes the map; a large ridge gives it back."""
    x, y, g = (
        np.asarray(drawn(shape, n)) for n, shape in enumerate([(40, 4), (40, 3), (2, 40, 3)])
    )
    plain = np.linalg.lstsq(x, y, rcond=None)[0]
    ridge = 0.1
    floor = np.sqrt(ridge * np.mean(g**2))
    rows = [np.einsum("ti,tj->tij", x, each).reshape(40, -1) / np.sqrt(2) for each in g]
    right = [np.sum(each * y, axis=-1) / np.sqrt(2) for each in g]
    rows.append(floor * np.kron(x, np.eye(3)))
    right.append(floor * y.ravel())
    expected = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0]
    found = weighted_map(x, y, g, ridge, start=plain)
    assert largest(found, expected.reshape(4, 3)) < 1e-5
    assert largest(found, plain) > 0.02
    assert largest(weighted_map(x, y, g, 1e6, start=0 * plain), plain) < 1e-5


def test_a_transported_map_errs_where_later_layers_do_not_look():
    """If the last token is read, the map fits it better, also on other inputs."""
    model = model_of(scales=(1.0, 0.5, 1.0, 1.0))
    batch, others = np.random.default_rng(5).integers(11, size=(2, 128, HELD_OUT.shape[1]))

    def last_token(outputs, inputs):
        return outputs[..., -1, :]

    error = native_target(model, others, last_token).error
    plain = least_squares_map(model, [1], batch)
    found = transported_map(model, [1], batch, last_token)
    assert error(patch_layers(model, [1], found)) < 0.95 * error(
        patch_layers(model, [1], plain)
    )
