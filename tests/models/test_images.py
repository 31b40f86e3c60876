"""Models of images, also of other sizes: the same rectangle in more or fewer patches."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest
from models.decoding import outputs_of

import ide_transformer as ide
from ide_transformer.equation import Linear
from ide_transformer.models.images import bicubic_matrix, resample


CLASSES = 5


def parts(key):
    control = ide.PiecewiseConstant.build(
        lambda key: (ide.Attention(WIDTH, HEADS, key=key, std=0.3),), 2, key=key
    )
    discretization = ide.Discretization(ide.LieTrotter())
    return dict(control=control, constraint=ide.Free(), discretization=discretization)


def encoder(prefix=1):
    keys = jax.random.split(jax.random.key(1), 5)
    return ide.ImageEncoder(
        (4, 6, 3),
        2,
        embedding=linear(4 * 3, WIDTH, keys[0]),
        prefix=tuple(jax.random.normal(keys[1], (prefix, WIDTH))),
        positions=jax.random.normal(keys[2], (prefix + 6, WIDTH)),
        **parts(keys[3]),
    )


def classifier(class_token=True, patch=2, **options):
    keys = jax.random.split(jax.random.key(0))
    options |= dict(class_token=class_token, std=0.5, key=keys[1])
    return ide.ImageClassifier((4, 6, 1), patch, CLASSES, WIDTH, **parts(keys[0]), **options)


def linear(features_in, features_out, key=jax.random.key(7)):
    return Linear(features_in, features_out, bias=True, std=0.3, key=key)


def images(size=(4, 6), batch=(2, 3)):
    return np.random.default_rng(0).standard_normal((*batch, *size, 3))


@eqx.filter_jit
def embedded(model, images):
    return model.embed(images)


def without_positions(model):
    return eqx.tree_at(lambda m: m.inputs.positions, model, replace_fn=jnp.zeros_like)


def test_states_on_one_image_and_on_batches():
    model = encoder(prefix=3)
    states = outputs_of(model, images())
    assert states.shape == (2, 3, 3 + 6, WIDTH)
    assert largest(states[1, 2], outputs_of(model, images()[1, 2])) < 1e-13
    assert model.equation.domain.points.shape == (3 + 6, 2)


def test_images_of_one_channel_need_no_axis_for_it():
    model = classifier()
    for size in ((4, 6), (8, 12)):
        images = np.random.default_rng(0).normal(size=(2, 3, *size))
        logits = outputs_of(model, images)
        assert logits.shape == (2, 3, CLASSES)
        assert largest(logits, outputs_of(model, images[..., None])) == 0
        assert largest(logits[1, 2], outputs_of(model, images[1, 2])) < 1e-13


def test_tokens_are_the_prefix_and_then_the_patches_row_by_row():
    model, image = encoder(prefix=2), images(batch=())
    tokens = eqx.filter_jit(lambda model, image: model.embed(image)[0])
    other = image.copy()
    other[2, 3, 1] += 1.0
    u0, changed = np.asarray(tokens(model, image)), np.asarray(tokens(model, other))
    # The pixel in row 2 and column 3 is in the second patch of the second row.
    assert np.flatnonzero(np.any(u0 != changed, axis=-1)).tolist() == [2 + 3 + 1]
    expected = np.stack(model.inputs.prefix) + model.inputs.positions[:2]
    assert largest(u0[:2], expected) < 1e-15


def test_runs_of_image_classifiers_store_their_weights_in_this_order():
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(classifier(), eqx.is_array))
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    assert names[:4] == [
        ".inputs.embedding.weight",
        ".inputs.embedding.bias",
        ".inputs.prefix[0]",
        ".inputs.positions",
    ]
    assert names[-2:] == [f".read_out.classifiers[0].{name}" for name in ("weight", "bias")]
    assert all(name.startswith(".control") for name in names[4:-2])


def affine(read, u):
    return u @ np.asarray(read.weight) + np.asarray(read.bias)


def test_heads_read_the_states():
    one, other = linear(WIDTH, CLASSES), linear(WIDTH, CLASSES, jax.random.key(8))
    both = linear(2 * WIDTH, CLASSES, jax.random.key(9))
    model = encoder(prefix=2)
    u = outputs_of(model, images())
    states = np.asarray(ide.LayerNorm().project(u))
    first, second = states[..., 0, :], states[..., 1, :]
    mean = states[..., 2:, :].mean(axis=-2)
    for head, expected in (
        (ide.PrefixHead((one,)), affine(one, first)),
        (ide.PrefixHead((one, other)), (affine(one, first) + affine(other, second)) / 2),
        (ide.PrefixAndMeanHead(both), affine(both, np.concatenate([first, mean], -1))),
        (ide.MeanHead(one), affine(one, mean)),
    ):
        outputs = eqx.filter_jit(head)(u, model.inputs)
        assert largest(outputs, expected) < 1e-13
    assert largest(outputs_of(model.with_read_out(head), images()), expected) < 1e-13


def test_pooled():
    pooler = linear(WIDTH, WIDTH)
    states = np.random.default_rng(1).standard_normal((2, 7, WIDTH))
    found = ide.States(pooler=pooler).pooled(jnp.asarray(states))
    assert largest(found, np.tanh(affine(pooler, states[:, 0]))) < 1e-14
    with pytest.raises(ide.InputError, match="there is no pooler"):
        ide.States().pooled(jnp.asarray(states))


def test_resized():
    model = encoder(prefix=2)
    larger = model.on(ide.Mesh(tokens=(4, 5)))
    assert outputs_of(larger, images((8, 10))).shape == (2, 3, 2 + 20, WIDTH)
    assert larger.inputs.grid == (4, 5)
    positions = model.inputs.positions
    assert (larger.inputs.positions[:2] == positions[:2]).all()
    assert (model.on(ide.Mesh(tokens=(2, 3))).inputs.positions == positions).all()
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
        other = eqx.tree_at(lambda m: m.inputs.positions, model, positions)
        return jnp.sum(other.on(ide.Mesh(tokens=(4, 3)))(images((8, 6), batch=())) ** 2)

    found = np.asarray(gradient(model.inputs.positions))
    assert found.shape == model.inputs.positions.shape
    assert (np.abs(found).max(axis=-1) > 1e-6).all()


def test_positions_are_interpolated_and_those_of_the_class_token_stay():
    model = classifier()
    images = np.random.default_rng(0).standard_normal((2, 8, 12, 1))
    u, domain = embedded(model, images)
    silent = np.asarray(embedded(without_positions(model), images)[0])
    positions = np.asarray(model.inputs.positions)
    patches = resample(jnp.asarray(positions[1:]).reshape(2, 3, WIDTH), (4, 6))
    expected = np.concatenate([positions[:1], patches.reshape(24, WIDTH)])
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


def test_images_that_do_not_fit(unchecked):
    model = encoder()
    built = r"built for \[\.\.\., 4, 6, 3\], 3 channels on the last axis; model\.on\(Mesh\("
    for shape in ((2, 3, 4, 6), (2, 4, 6, 1), (4, 6), (8, 6, 3), (5, 6, 3)):
        with pytest.raises(ide.InputError, match=built):
            model(jnp.zeros(shape))
    with pytest.raises(ide.InputError, match="images of uint8"):
        model(jnp.zeros((4, 6, 3), jnp.uint8))


def test_sizes_that_no_patch_divides(unchecked):
    model = classifier()
    for rows in (5, 0):
        with pytest.raises(ide.InputError, match=f"of {rows} by 6; choose multiples of 2"):
            model(jnp.zeros((rows, 6, 1)))
    with pytest.raises(ide.InputError, match="images of 6 by 3"):
        model(jnp.zeros((4, 6, 3)))
    with pytest.raises(ide.InputError, match="a stride of 4 does not divide images of 4 by 6"):
        classifier(patch=4)


def test_models_that_do_not_fit(unchecked):
    model = encoder()
    with pytest.raises(ide.InputError, match="5 patches make no grid of the shape of images"):
        model.on(ide.Mesh(tokens=5))
    assert model.on(ide.Mesh(tokens=24)).inputs.grid == (4, 6)
    with pytest.raises(ide.InputError, match="7 positions for 6 tokens, 0 learned ones"):
        dataclasses.replace(model.inputs, prefix=())
    with pytest.raises(ide.InputError, match="reads 2 learned tokens, and there are 1"):
        model.with_read_out(ide.PrefixHead((linear(WIDTH, 3), linear(WIDTH, 3))))
    with pytest.raises(ide.InputError, match=r"embedding takes 5 numbers, .* window has 12"):
        dataclasses.replace(model.inputs, embedding=linear(5, WIDTH))
