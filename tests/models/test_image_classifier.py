"""Images of other sizes: the same rectangle in more or fewer patches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest

import ide_transformer as ide
from ide_transformer.models.bicubic import resample


def classifier(class_token=True, **options):
    keys = jax.random.split(jax.random.key(0))
    return ide.ImageClassifier(
        (4, 6, 1),
        2,
        3,
        WIDTH,
        control=ide.PiecewiseConstant.build(
            lambda key: (ide.Attention(WIDTH, HEADS, key=key, std=0.5),), 2, key=keys[0]
        ),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        class_token=class_token,
        std=0.5,
        key=keys[1],
        **options,
    )


@eqx.filter_jit
def outputs_of(model, images):
    return model(images)


@eqx.filter_jit
def embedded(model, images):
    return model.embed(images)


def without_positions(model):
    return eqx.tree_at(lambda m: m.positions, model, jnp.zeros_like(model.positions))


def test_positions_are_interpolated_and_those_of_the_class_token_stay():
    model = classifier()
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 1))
    u, domain = embedded(model, images)
    silent = np.asarray(embedded(without_positions(model), images)[0])
    patches = resample(model.positions[1:].reshape(2, 3, WIDTH), (4, 6)).reshape(24, WIDTH)
    expected = np.concatenate([np.asarray(model.positions)[:1], patches])
    assert largest(np.asarray(u) - silent, np.broadcast_to(expected, u.shape)) < 1e-13
    # The rectangle of the model: 2 by 3 patches of side 1 around (0, 0), (0, 1), …
    assert domain.points[1].tolist() == [-0.25, -0.25]
    assert domain.points[-1].tolist() == [1.25, 2.25]
    assert domain.points[0].tolist() == [0.5, 1.0]
    assert domain.weights.tolist() == [1.0] + 24 * [0.25]


def test_area_weights_keep_the_part_of_the_class_token():
    image, finer = np.full((4, 6, 1), 0.7), np.full((8, 12, 1), 0.7)
    model, plain = classifier(), classifier(area_weights=False)
    model, plain = without_positions(model), without_positions(plain)
    assert largest(outputs_of(model, finer), outputs_of(model, image)) < 1e-13
    assert largest(outputs_of(plain, image), outputs_of(model, image)) == 0.0
    assert largest(outputs_of(plain, finer), outputs_of(model, image)) > 1e-3


def test_without_a_class_token_weights_make_no_difference():
    images = np.random.default_rng(1).standard_normal((8, 12, 1))
    a, b = (classifier(class_token=False, area_weights=x) for x in (True, False))
    assert a.embed(images)[1].weights is None
    assert largest(outputs_of(a, images), outputs_of(b, images)) == 0.0
    assert a.embed(images[:4, :6, 0])[1].grid == (2, 3)


def test_sizes_that_no_patch_divides(unchecked):
    model = classifier()
    with pytest.raises(ide.InputError, match=r"resize the images to 4 by 6 .* multiples of 2"):
        model(jnp.zeros((5, 6, 1)))
    with pytest.raises(ide.InputError, match="last axis of 1 channels"):
        model(jnp.zeros((4, 6, 3)))


def test_images_of_one_channel_need_no_axis_for_it():
    model = classifier()
    for size in ((4, 6), (8, 12)):
        images = np.random.default_rng(0).normal(size=(3, *size))
        assert largest(outputs_of(model, images), outputs_of(model, images[..., None])) == 0
