"""The model of images that checkpoints are loaded as."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest

import ide_transformer as ide
from ide_transformer.equation import Linear
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
    return jax.random.normal(jax.random.key(0), (*batch, *size, channels))


@pytest.mark.parametrize("prefix", [0, 1, 3])
def test_states_on_one_image_and_on_batches(prefix):
    model = encoder(prefix)
    states = model(images())
    assert states.shape == (2, 3, prefix + 6, WIDTH)
    assert largest(states[1, 2], model(images()[1, 2])) < 1e-13
    assert model.equation.domain.points.shape == (prefix + 6, 2)


def test_tokens_are_the_prefix_and_then_the_patches_row_by_row():
    model, image = encoder(prefix=2), images(batch=())
    u0, _ = model.embed(image)
    changed, _ = model.embed(image.at[2, 3, 1].add(1.0))
    # The pixel in row 2 and column 3 lies in the second patch of the second row.
    assert np.flatnonzero(np.any(u0 != changed, axis=-1)).tolist() == [2 + 3 + 1]
    expected = jnp.stack(model.prefix) + model.positions[:2]
    assert largest(u0[:2], expected) < 1e-15


def test_a_classifier_of_each_prefix_token_and_their_mean():
    first, second = linear(WIDTH, CLASSES), linear(WIDTH, CLASSES, jax.random.key(8))
    model = encoder(prefix=2, head=ide.PrefixHead((first, second)))
    states = model.with_head(ide.NoHead())(images())
    expected = (first(states[..., 0, :]) + second(states[..., 1, :])) / 2
    assert largest(model(images()), expected) < 1e-14
    one = model.with_head(ide.PrefixHead((first,)))
    assert largest(one(images()), first(states[..., 0, :])) < 1e-14


def test_a_classifier_of_the_first_token_and_the_mean_of_patches():
    read = linear(2 * WIDTH, CLASSES)
    model = encoder(prefix=2, head=ide.PrefixAndMeanHead(read))
    states = model.with_head(ide.NoHead())(images())
    both = jnp.concatenate([states[..., 0, :], states[..., 2:, :].mean(axis=-2)], axis=-1)
    assert largest(model(images()), read(both)) < 1e-14


def test_pooled():
    model = encoder(pooler=True)
    states = model(images())
    assert model.pooler is not None
    expected = jnp.tanh(model.pooler(states[..., 0, :]))
    assert largest(model.pooled(states), expected) < 1e-15


def test_resized():
    model = encoder(prefix=2)
    larger = model.resized((8, 10))
    assert larger(images((8, 10))).shape == (2, 3, 2 + 20, WIDTH)
    assert larger.grid == (4, 5)
    assert (larger.positions[:2] == model.positions[:2]).all()
    assert (model.resized((4, 6)).positions == model.positions).all()
    assert larger.control is model.control


def test_resampling_keeps_constants_and_reflections_and_halves_as_tabulated(key):
    # The weights half-way between two points for a = -3/4; the first point goes on.
    half = [-0.09375 + 0.59375, 0.59375, -0.09375, 0.0]
    assert bicubic_matrix(4, 2).tolist() == [half, half[::-1]]
    for old, new in ((3, 7), (7, 3), (5, 5), (1, 4)):
        matrix = bicubic_matrix(old, new)
        assert largest(matrix.sum(axis=1), np.ones(new)) < 1e-14
        assert largest(matrix[::-1, ::-1], matrix) < 1e-14
    values = jax.random.normal(key, (3, 4, 2))
    expected = np.einsum("ik,jl,klf->ijf", bicubic_matrix(3, 5), bicubic_matrix(4, 2), values)
    assert largest(resample(values, (5, 2)), expected) < 1e-14


def test_gradients_reach_the_positions_of_a_resized_model():
    model = encoder()

    def loss(positions):
        other = jax.tree.map(lambda x: positions if x is model.positions else x, model)
        return jnp.sum(other.resized((8, 6))(images((8, 6), batch=())) ** 2)

    gradient = jax.grad(loss)(model.positions)
    assert gradient.shape == model.positions.shape
    assert (jnp.abs(gradient).max(axis=-1) > 1e-6).all()


def test_images_that_do_not_fit(unchecked):
    model = encoder()
    built = r"built for \[\.\.\., 4, 6, 3\]; "
    with pytest.raises(ide.InputError, match=built + r"channels come last: write jnp.moveaxis"):
        model(jnp.zeros((2, 3, 4, 6)))
    with pytest.raises(ide.InputError, match=built + "give images with a last axis of 3"):
        model(jnp.zeros((2, 4, 6, 1)))
    with pytest.raises(ide.InputError, match=built + "give images with a last axis of 3"):
        model(jnp.zeros((4, 6)))
    with pytest.raises(ide.InputError, match=r"or the model: model\.resized\(\(8, 6\)\)"):
        model(jnp.zeros((8, 6, 3)))
    with pytest.raises(ide.InputError, match="resize the images to 4 by 6 pixels"):
        model(jnp.zeros((5, 6, 3)))
    with pytest.raises(ide.InputError, match="images of uint8"):
        model(jnp.zeros((4, 6, 3), jnp.uint8))


def test_models_that_do_not_fit(unchecked):
    model = encoder()
    with pytest.raises(ide.InputError, match="do not divide images of 5 by 6; choose"):
        model.resized((5, 6))
    with pytest.raises(ide.InputError, match="do not divide images of 0 by 6"):
        model.resized((0, 6))
    with pytest.raises(ide.InputError, match="no pooler"):
        model.pooled(model(images()))
    options = {name: getattr(model, name) for name in model.__dataclass_fields__}
    with pytest.raises(ide.InputError, match="7 positions, but 0 prefix tokens and 6 patches"):
        ide.ImageEncoder(**(options | dict(prefix=())))
