"""The models of images that checkpoints are loaded as."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest

import ide_transformer as ide
from ide_transformer.equation import Linear
from ide_transformer.models import MeanHead
from ide_transformer.models.bicubic import bicubic_matrix, resample


CLASSES = 5


def encoder(prefix=1, head=ide.NoHead(), pooler=False, size=(4, 6), channels=3):
    keys = jax.random.split(jax.random.key(1), 5)
    tokens = prefix + (size[0] // 2) * (size[1] // 2)
    return ide.ImageEncoder(
        (*size, channels),
        2,
        embedding=linear(4 * channels, WIDTH, keys[0]),
        prefix=tuple(jax.random.normal(keys[1], (prefix, WIDTH))),
        positions=jax.random.normal(keys[2], (tokens, WIDTH)),
        control=ide.PiecewiseConstant.build(
            lambda key: (ide.Attention(WIDTH, HEADS, key=key, std=0.3),), 2, key=keys[3]
        ),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        pooler=linear(WIDTH, WIDTH, keys[4]) if pooler else None,
        head=head,
    )


def linear(features_in, features_out, key=jax.random.key(7)):
    return Linear(features_in, features_out, bias=True, std=0.3, key=key)


def images(size=(4, 6), channels=3, batch=(2, 3)):
    return np.random.default_rng(0).standard_normal((*batch, *size, channels))


@eqx.filter_jit
def outputs_of(model, inputs):
    return model(inputs)


def test_states_on_one_image_and_on_batches():
    model = encoder(prefix=3)
    states = outputs_of(model, images())
    assert states.shape == (2, 3, 3 + 6, WIDTH)
    assert largest(states[1, 2], outputs_of(model, images()[1, 2])) < 1e-13
    assert model.equation.domain.points.shape == (3 + 6, 2)


def test_tokens_are_the_prefix_and_then_the_patches_row_by_row():
    model, image = encoder(prefix=2), images(batch=())
    tokens = eqx.filter_jit(lambda model, image: model.embed(image)[0])
    other = image.copy()
    other[2, 3, 1] += 1.0
    u0, changed = np.asarray(tokens(model, image)), np.asarray(tokens(model, other))
    # The pixel in row 2 and column 3 is in the second patch of the second row.
    assert np.flatnonzero(np.any(u0 != changed, axis=-1)).tolist() == [2 + 3 + 1]
    expected = np.stack(model.prefix) + model.positions[:2]
    assert largest(u0[:2], expected) < 1e-15


def affine(read, u):
    return u @ np.asarray(read.weight) + np.asarray(read.bias)


def test_heads_read_the_states():
    one, other = linear(WIDTH, CLASSES), linear(WIDTH, CLASSES, jax.random.key(8))
    both = linear(2 * WIDTH, CLASSES, jax.random.key(9))
    model = encoder(prefix=2)
    states = np.asarray(outputs_of(model, images()))
    prefix, patches = states[..., :2, :], states[..., 2:, :]
    first, second = prefix[..., 0, :], prefix[..., 1, :]
    mean = patches.mean(axis=-2)
    for head, expected in (
        (ide.PrefixHead((one,)), affine(one, first)),
        (ide.PrefixHead((one, other)), (affine(one, first) + affine(other, second)) / 2),
        (ide.PrefixAndMeanHead(both), affine(both, np.concatenate([first, mean], axis=-1))),
        (MeanHead(one), affine(one, mean)),
    ):
        outputs = eqx.filter_jit(head)(jnp.asarray(prefix), jnp.asarray(patches))
        assert largest(outputs, expected) < 1e-13
    assert largest(outputs_of(model.with_head(head), images()), expected) < 1e-13


def test_pooled():
    model = encoder(pooler=True)
    states = np.random.default_rng(1).standard_normal((2, 7, WIDTH))
    expected = np.tanh(affine(model.pooler, states[:, 0]))
    assert largest(model.pooled(jnp.asarray(states)), expected) < 1e-14


def test_resized():
    model = encoder(prefix=2)
    larger = model.on(ide.Mesh(tokens=(4, 5)))
    assert outputs_of(larger, images((8, 10))).shape == (2, 3, 2 + 20, WIDTH)
    assert larger.grid == (4, 5)
    assert (larger.positions[:2] == model.positions[:2]).all()
    assert (model.on(ide.Mesh(tokens=(2, 3))).positions == model.positions).all()
    assert larger.control is model.control


def test_resampling_keeps_constants_and_reflections_and_halves_as_tabulated():
    # The weights half-way between two points for a = -3/4; the first point goes on.
    half = [-0.09375 + 0.59375, 0.59375, -0.09375, 0.0]
    assert bicubic_matrix(4, 2).tolist() == [half, half[::-1]]
    for old, new in ((3, 7), (7, 3), (5, 5), (1, 4)):
        matrix = bicubic_matrix(old, new)
        assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-14
        assert np.abs(matrix[::-1, ::-1] - matrix).max() < 1e-14
    values = np.random.default_rng(0).standard_normal((3, 4, 2))
    expected = np.einsum("ik,jl,klf->ijf", bicubic_matrix(3, 5), bicubic_matrix(4, 2), values)
    assert largest(resample(jnp.asarray(values), (5, 2)), expected) < 1e-14


def test_gradients_reach_the_positions_of_a_resized_model():
    model = encoder()

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(positions):
        other = eqx.tree_at(lambda m: m.positions, model, positions)
        return jnp.sum(other.on(ide.Mesh(tokens=(4, 3)))(images((8, 6), batch=())) ** 2)

    found = np.asarray(gradient(model.positions))
    assert found.shape == model.positions.shape
    assert (np.abs(found).max(axis=-1) > 1e-6).all()


def test_images_that_do_not_fit(unchecked):
    model = encoder()
    built = r"built for \[\.\.\., 4, 6, 3\]; "
    with pytest.raises(ide.InputError, match=built + r"channels come last: write jnp.moveaxis"):
        model(jnp.zeros((2, 3, 4, 6)))
    with pytest.raises(ide.InputError, match=built + "give images with a last axis of 3"):
        model(jnp.zeros((2, 4, 6, 1)))
    with pytest.raises(ide.InputError, match=built + "give images with a last axis of 3"):
        model(jnp.zeros((4, 6)))
    with pytest.raises(
        ide.InputError, match=r"or the model: model\.on\(Mesh\(tokens=\(4, 3\)\)\)"
    ):
        model(jnp.zeros((8, 6, 3)))
    with pytest.raises(ide.InputError, match="resize the images to 4 by 6 pixels"):
        model(jnp.zeros((5, 6, 3)))
    with pytest.raises(ide.InputError, match="images of uint8"):
        model(jnp.zeros((4, 6, 3), jnp.uint8))


def test_models_that_do_not_fit(unchecked):
    model = encoder()
    with pytest.raises(ide.InputError, match="5 patches make no grid of the shape of images"):
        model.on(ide.Mesh(tokens=5))
    assert model.on(ide.Mesh(tokens=24)).grid == (4, 6)
    with pytest.raises(ide.InputError, match="ImageEncoder has no pooler"):
        model.pooled(jnp.zeros((7, WIDTH)))
    options = {x.name: getattr(model, x.name) for x in dataclasses.fields(model)}
    with pytest.raises(ide.InputError, match="7 positions, but 0 prefix tokens and 6 patches"):
        ide.ImageEncoder(**(options | dict(prefix=())))
    with pytest.raises(ide.InputError, match="reads 2 prefix tokens, and there are 1"):
        model.with_head(ide.PrefixHead((linear(WIDTH, 3), linear(WIDTH, 3))))
    with pytest.raises(
        ide.InputError, match="embedding takes 5 numbers, and a patch of 2 by 2"
    ):
        ide.ImageEncoder(**(options | dict(embedding=linear(5, WIDTH))))
