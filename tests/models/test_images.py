"""Models of images, also of other sizes and in stages: windows, positions, areas, heads."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from models.examples import (
    STAGED,
    WIDTH,
    embedded_by,
    filled,
    image_classifier,
    image_encoder,
    linear,
    normal,
    outputs_of,
    solved_by_hand,
    stage,
    stages,
)
from published.numpy_blocks import layer_norm

import ide_transformer as ide
from ide_transformer.models.images import bicubic_matrix, resample


CLASSIFIER = filled(image_classifier)
ENCODER = filled(lambda: image_encoder(prefix=2))
FIRST, LAST = STAGES = filled(stages)
MODEL = ide.StagedModel(STAGES)


@eqx.filter_jit
def outputs_and_solution_of(model, inputs):
    return model(inputs), model.solve(inputs)


def affine(read, u):
    return u @ np.asarray(read.weight) + np.asarray(read.bias)


def without_positions(model):
    return eqx.tree_at(lambda m: m.inputs.positions, model, replace_fn=jnp.zeros_like)


def test_images_of_one_channel_need_no_axis_for_it():
    images = normal(2, 4, 6)
    u, domain = embedded_by(CLASSIFIER, images)
    assert u.shape == (2, domain.num_tokens, WIDTH)
    assert largest(u, embedded_by(CLASSIFIER, images[..., None])[0]) == 0


def test_tokens_are_the_prefix_and_then_the_patches_row_by_row():
    image, inputs = normal(4, 6, 3), ENCODER.inputs
    patches = image.reshape(2, 2, 3, 2, 3).swapaxes(1, 2).reshape(6, 12)
    tokens = np.concatenate([np.stack(inputs.prefix), affine(inputs.embedding, patches)])
    u0, domain = embedded_by(ENCODER, image)
    assert (domain.points == ENCODER.domain.points).all()
    assert largest(u0, tokens + np.asarray(inputs.positions)) < 1e-13
    assert domain.points.tolist() == [
        *([[0.5, 1.0]] * 2),
        *([float(i), float(j)] for i in range(2) for j in range(3)),
    ]


def test_runs_of_image_classifiers_store_their_weights_in_this_order():
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(CLASSIFIER, eqx.is_array))
    names = [jax.tree_util.keystr(path) for path, _ in leaves]
    inputs = ["embedding.weight", "embedding.bias", "prefix[0]", "positions"]
    assert names[:4] == [f".inputs.{name}" for name in inputs]
    assert names[-2:] == [f".read_out.classifiers[0].{name}" for name in ("weight", "bias")]
    assert all(name.startswith(".control") for name in names[4:-2])


def test_heads_read_the_states():
    sizes = (WIDTH, 5), (WIDTH, 5), (2 * WIDTH, 5), (WIDTH, WIDTH)
    one, other, both, pooler = filled(lambda: [linear(*x) for x in sizes])
    u = normal(2, 8, WIDTH)
    states = layer_norm(u)
    first, second, mean = states[:, 0], states[:, 1], states[:, 2:].mean(1)
    heads = ide.PrefixHead((one,)), ide.PrefixHead((one, other)), ide.MeanHead(one)
    heads = *heads, ide.PrefixAndMeanHead(both)

    @eqx.filter_jit
    def read(heads, pooler):
        last = ENCODER.with_read_out(heads[-1]).outputs(u)
        pooled = ide.States(pooler=pooler).pooled(u)
        return [*(head(u, ENCODER.inputs) for head in heads), last, pooled]

    joined = affine(both, np.concatenate([first, mean], -1))
    expected = [affine(one, first), (affine(one, first) + affine(other, second)) / 2]
    expected += [affine(one, mean), joined, joined, np.tanh(affine(pooler, u[:, 0]))]
    for x, y in zip(read(heads, pooler), expected, strict=True):
        assert largest(x, y) < 1e-13
    with pytest.raises(ide.InputError, match="there is no pooler"):
        ide.States().pooled(u)


def test_resampling_keeps_constants_and_reflections_and_halves_as_tabulated():
    # The weights half-way between two points for a = -3/4; the first point goes on.
    half = [-0.09375 + 0.59375, 0.59375, -0.09375, 0.0]
    assert bicubic_matrix(4, 2).tolist() == [half, half[::-1]]
    for old, new in ((3, 7), (7, 3), (5, 5), (1, 4)):
        matrix = bicubic_matrix(old, new)
        assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-14
        assert np.abs(matrix[::-1, ::-1] - matrix).max() < 1e-14
    values = normal(3, 4, 2)
    expected = np.einsum("ik,jl,klf->ijf", bicubic_matrix(3, 5), bicubic_matrix(4, 2), values)
    assert largest(resample(jnp.asarray(values), (5, 2)), expected) < 1e-14


def test_an_encoder_of_another_size_has_interpolated_positions():
    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def resized(positions):
        other = eqx.tree_at(lambda m: m.inputs.positions, ENCODER, positions)
        other = other.on(ide.Mesh(tokens=(4, 5)))
        states = other(normal(8, 10, 3))
        return jnp.sum(states**2), (states, other.inputs.positions)

    positions = ENCODER.inputs.positions
    (_, (states, larger)), gradient = resized(positions)
    assert states.shape == (2 + 20, WIDTH)
    own = jnp.asarray(positions[2:]).reshape(2, 3, WIDTH)
    assert largest(larger[2:], resample(own, (4, 5)).reshape(20, WIDTH)) < 1e-14
    assert (larger[:2] == positions[:2]).all()
    assert (np.abs(gradient).max(axis=-1) > 1e-6).all()
    same = ENCODER.on(ide.Mesh(tokens=(2, 3))).inputs
    assert same.grid == (2, 3) and (same.positions == positions).all()
    assert ENCODER.on(ide.Mesh(tokens=24)).inputs.grid == (4, 6)


def test_a_larger_image_is_the_same_rectangle():
    images = normal(2, 8, 12, 1)
    u, domain = embedded_by(CLASSIFIER, images)
    silent = np.asarray(embedded_by(without_positions(CLASSIFIER), images)[0])
    positions = np.asarray(CLASSIFIER.inputs.positions)
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
    model = without_positions(CLASSIFIER)
    plain = filled(lambda: image_classifier(area_weights=False))
    plain = without_positions(plain)
    assert largest(outputs_of(model, finer), outputs_of(model, image)) < 1e-13
    assert largest(outputs_of(plain, image), outputs_of(model, image)) == 0.0
    assert largest(outputs_of(plain, finer), outputs_of(model, image)) > 1e-3
    # Without a class token all have the same.
    bare = filled(lambda: image_classifier(class_token=False))
    assert eqx.filter_eval_shape(bare.embed, finer)[1].weights is None
    assert eqx.filter_eval_shape(bare.embed, image[..., 0])[1].grid == (2, 3)


def windows_of(image, window, stride, padding):
    wide = np.pad(image, [(padding, padding), (padding, padding), (0, 0)])
    rows, columns = image.shape[:2]
    return np.array(
        [
            wide[i : i + window, j : j + window].ravel()
            for i in range(0, rows, stride)
            for j in range(0, columns, stride)
        ]
    )


@pytest.mark.parametrize(
    ("window", "stride", "padding", "given"), [(7, 4, 2, None), (5, 4, 2, 2), (2, 2, 0, None)]
)
def test_windows_are_a_strided_convolution(window, stride, padding, given):
    make = lambda: stage((8, 4, 2), 4, stride=stride, window=window, padding=given)  # noqa: E731
    one = filled(make)
    u, domain = embedded_by(one, STAGED)
    assert domain.grid == one.inputs.grid == (8 // stride, 4 // stride)
    v = affine(one.inputs.embedding, windows_of(STAGED[1], window, stride, padding))
    assert largest(u[1], layer_norm(v)) < 1e-12


def test_stages_are_one_solve_after_the_other():
    def solved(one, u, domain):
        return solved_by_hand(ide.Equation(one.control, ide.Free(), domain), u, one.solver)

    states = solved(FIRST, *embedded_by(FIRST, STAGED))
    u, domain = embedded_by(LAST, np.asarray(states).reshape(2, 4, 2, 4))
    assert domain.prefix == 1 and domain.grid == (2, 1)
    token = layer_norm(solved(LAST, u, domain))[:, 0]
    found, solution = outputs_and_solution_of(MODEL, STAGED)
    assert largest(found, affine(LAST.read_out.classifiers[0], token)) < 1e-12
    assert solution.stats["steps"] == solution.stats["field_evaluations"] == 1 + 2
    assert bool(solution.succeeded)
    # A stage that fails is a solve that fails, whatever comes after it.
    nan = eqx.tree_at(lambda m: m.inputs.embedding.bias, FIRST, replace_fn=lambda x: x * np.nan)
    _, failed = outputs_and_solution_of(ide.StagedModel((nan, LAST)), STAGED)
    assert not bool(failed.succeeded) and failed.failed_at == 1


def test_stages_of_an_image_of_another_size():
    assert jax.eval_shape(MODEL, normal(12, 8, 2)).shape == (3,)
    assert MODEL.inputs.grid == MODEL.inputs.grid_of((8, 4, 2)) == (2, 1)
    assert MODEL.domain.num_tokens == 1 + 2
    # The area of the stage's own 2 by 1 tokens in the place of 3 by 2.
    states = np.ones((6, 4, 4))
    _, domain = embedded_by(LAST, states)
    assert domain.weights.tolist() == [1.0] + 6 * [pytest.approx(1 / 3)]
    plain = filled(lambda: stages(area_weights=False))[1]
    assert eqx.filter_eval_shape(plain.embed, states)[1].weights is None


def test_what_changes_all_stages_and_what_the_last_alone():
    both = MODEL.with_solver(ide.Strang(), steps_per_interval=2)
    both = both.with_options(gradient=ide.Direct())
    assert both.equations[-1] is both
    exit = ide.EstimatedExit(0.1)
    for changed in (
        both.with_exit(exit),
        both.with_options(exit=exit, gradient=ide.Direct()),
        both.with_solver(ide.Strang(), steps_per_interval=2, exit=exit),
    ):
        first, last = (one.discretization for one in changed.equations)
        assert (first.exit, last.exit) == (None, exit)
        assert changed.with_exit(None).discretization.exit is None
        for each in (first, last):
            assert type(each.solver) is ide.Strang and each.steps_per_interval == 2
            assert type(each.gradient) is ide.Direct


REFUSED = {
    r"images of shape \(8, 6, 3\).*built for \[\.\.\., 4, 6, 3\], 3 channels on the last axis; "
    r"model\.on\(Mesh\(": lambda: ENCODER(jnp.zeros((8, 6, 3))),
    "of 5 by 6; choose one that does .model.patch., or multiples of 2": lambda: CLASSIFIER(
        jnp.zeros((5, 6, 1))
    ),
    "8 positions for 6 tokens, 0 learned": lambda: dataclasses.replace(
        ENCODER.inputs, prefix=()
    ),
    "reads 3 learned tokens, and there are 2": lambda: ENCODER.with_read_out(
        ide.PrefixHead((linear(WIDTH, 3),) * 3)
    ),
    "whose read_out is States, not PrefixHead": lambda: ide.StagedModel((LAST, FIRST)),
    r"built for \(4, 4, 4\); give it": lambda: ide.StagedModel((FIRST, stage((4, 4, 4), 4))),
    "window=3, stride=4, .* a window of 4 or more": lambda: stage(
        (8, 4, 2), 4, stride=4, window=3
    ),
    "padding=1 .* a padding from 2 to 2": lambda: stage((8, 4, 2), 4, window=5, padding=1),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit(message, unchecked):
    with pytest.raises(ide.InputError, match=message):
        REFUSED[message]()
