"""Maps of functions on circles, intervals and their products; models of images,
also of other sizes and in stages."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from tests.helpers import built, largest
from tests.models import examples as small
from tests.models.examples import WIDTH, normal, outputs_of
from tests.published.numpy_blocks import layer_norm


ON_CIRCLE = small.operator_model()


def circle(n):
    return np.arange(n) / n


def function(points):
    return np.cos(2 * np.pi * points).sum(-1) + np.sin(4 * np.pi * points[:, -1])


def test_it_is_the_equation_between_two_linear_maps():
    """On the product of a periodic grid and a Gauss rule, whose waves have half the length."""
    points, options = (6, 8), dict(grid=("periodic", "gauss_legendre"))
    model = small.operator_model(points, operators=(small.attention,), **options)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    axes = np.meshgrid(circle(6), (nodes + 1) / 2, indexing="ij")
    x = np.stack(axes, axis=-1).reshape(-1, 2)
    a = function(x)
    waves = [
        turned(2 * np.pi * k * x[:, axis] / length)
        for axis, length in enumerate((1, 2))
        for turned in (np.cos, np.sin)
        for k in (1, 2)
    ]
    read_in, read = model.inputs.embedding, model.read_out.linear
    u0 = np.stack([a, *waves], axis=1) @ np.asarray(read_in.weight) + np.asarray(read_in.bias)
    points_and_weights = jax.device_put((x, np.tile(weights / 2, 6)))
    domain = ide.TokenDomain(*points_and_weights, period=(1.0, None))
    u1 = small.solved_by_hand(ide.Equation(model.control, ide.Free(), domain), u0)
    expected = layer_norm(u1) @ np.asarray(read.weight)[:, 0] + np.asarray(read.bias)[0]
    assert largest(outputs_of(model, a.reshape(points)), expected.reshape(points)) < 1e-12
    assert largest(outputs_of(model, ide.Field(a, domain)), expected) < 1e-12


def test_another_grid_gives_the_same_function():
    """Sums over a periodic grid converge faster than any power of the number of points."""
    model = built(small.operator_model, std=0.25)

    def outputs(points):
        return np.asarray(outputs_of(model, function(circle(points)[:, None])))

    exact = outputs(64)
    errors = [largest(outputs(n), exact[:: 64 // n]) / largest(exact, 0) for n in (16, 32)]
    assert errors[0] < 0.1 and errors[1] < 0.1 * errors[0]
    with pytest.raises(ide.InputError, match=r"4 points .* 2 waves"):
        model(np.ones(4))


def test_points_around_a_circle_are_free_and_those_of_an_interval_are_not():
    points = jax.device_put(np.linspace(0.1, 0.9, 9)[:, None])
    domains = (ide.TokenDomain(x, period=(1.0,)) for x in (points + 1, points))
    field, moved = (ide.Field(np.arange(9.0), x) for x in domains)
    assert largest(outputs_of(ON_CIRCLE, field), outputs_of(ON_CIRCLE, moved)) < 1e-10
    with pytest.raises(ide.InputError, match="periodic=True"):
        ON_CIRCLE(ide.Field.at(np.arange(9.0), np.linspace(0.1, 0.9, 9)))
    # What a compiled program is given cannot be refused.
    interval = small.operator_model(grid="midpoint", operators=(small.feed_forward,))
    assert np.isnan(outputs_of(interval, field)).all()
    with pytest.raises(ide.InputError, match=r"\[1.1\].*\[0, 1\]"):
        interval(field)


def test_channels_come_first():
    model, u = small.operator_model((6, 8), channels=2), normal(3, 2, 6, 8)
    emulator = ide.contrib.ChannelsFirst(model)
    outputs, expected = jax.jit(lambda u: (emulator(u), model(jnp.moveaxis(u, 1, -1))))(u)
    assert largest(outputs, np.moveaxis(expected, -1, 1)) < 1e-12
    # Without an axis of channels.
    of_one = jax.eval_shape(ide.contrib.ChannelsFirst(ON_CIRCLE), np.ones((3, 1, 16)))
    assert of_one.shape == (3, 1, 16)


CLASSIFIER = small.image_classifier()
ENCODER = small.image_encoder(prefix=2)
FIRST, LAST = STAGES = small.stages()
MODEL = ide.StagedModel(STAGES)


def affine(read, u):
    return u @ np.asarray(read.weight) + np.asarray(read.bias)


def without_positions(model):
    return eqx.tree_at(lambda m: m.inputs.positions, model, replace_fn=jnp.zeros_like)


def test_heads_read_the_states():
    read = small.linear(WIDTH, 5)
    u = normal(2, 8, WIDTH)
    mean = affine(read, layer_norm(u)[:, 2:].mean(1))
    assert largest(eqx.filter_jit(ide.models.MeanHead(read))(u, ENCODER.inputs), mean) < 1e-13
    two_heads = eqx.filter_jit(ide.models.PrefixHead((read, read)))
    mean = affine(read, layer_norm(u)[:, :2].mean(1))
    assert largest(two_heads(u, ENCODER.inputs), mean) < 1e-13
    pooled = np.tanh(affine(read, u[:, 0]))
    assert largest(ide.models.States(pooler=read).pooled(jnp.asarray(u)), pooled) < 1e-13
    with pytest.raises(ide.InputError, match=r"3 learned tokens.* 2"):
        dataclasses.replace(ENCODER, read_out=ide.models.PrefixHead((read,) * 3))


def test_an_encoder_on_a_grid_of_other_patches():
    same = ENCODER.on(ide.Mesh(tokens=(2, 3))).inputs
    assert same.grid == (2, 3) and (same.positions == ENCODER.inputs.positions).all()
    assert ENCODER.on(ide.Mesh(tokens=24)).inputs.grid == (4, 6)
    with pytest.raises(ide.InputError, match=r"\(8, 6, 3\).*model\.on\(Mesh\("):
        ENCODER(jnp.zeros((8, 6, 3)))


def test_a_larger_image_is_the_same_rectangle():
    _, domain = small.embedded_by(CLASSIFIER, normal(2, 8, 12, 1))
    # The rectangle of the model: 2 by 3 patches of side 1 around (0, 0), (0, 1), …
    assert domain.points[1].tolist() == [-0.25, -0.25]
    assert domain.points[-1].tolist() == [1.25, 2.25]
    assert domain.points[0].tolist() == [0.5, 1.0]
    assert domain.weights.tolist() == [1.0] + 24 * [0.25]


def test_area_weights_keep_the_part_of_the_class_token():
    image, finer = np.full((4, 6, 1), 0.7), np.full((8, 12, 1), 0.7)
    model = without_positions(CLASSIFIER)
    plain = without_positions(small.image_classifier(area_weights=False))
    assert largest(outputs_of(model, finer), outputs_of(model, image)) < 1e-13
    assert largest(outputs_of(plain, image), outputs_of(model, image)) == 0.0
    assert largest(outputs_of(plain, finer), outputs_of(model, image)) > 1e-3
    # Without a class token all have the same; images of one channel need no axis for it.
    bare = small.image_classifier(class_token=False)
    assert eqx.filter_eval_shape(bare.embed, finer[..., 0])[1].weights is None


@eqx.filter_jit
def stages_by_hand(first, last):
    """The states at the end of the second stage, outputs and solution of the model."""

    def solved(stage, inputs):
        u, domain = stage.embed(inputs)
        equation = ide.Equation(stage.control, ide.Free(), domain)
        return ide.solve(equation, u, solver=stage.solver, throw=False).u1, domain

    model, (states, _) = ide.StagedModel((first, last)), solved(first, small.STAGED)
    by_hand = solved(last, states.reshape(2, 4, 2, 4))
    return *by_hand, model(small.STAGED), model.solve(small.STAGED)


def test_stages_are_one_solve_after_the_other():
    states, domain, outputs, solution = stages_by_hand(FIRST, LAST)
    assert domain.prefix == 1 and domain.grid == (2, 1)
    token = layer_norm(states)[:, 0]
    assert largest(outputs, affine(LAST.read_out.classifiers[0], token)) < 1e-12
    assert solution.stats["steps"] == solution.stats["field_evaluations"] == 1 + 2
    assert bool(solution.succeeded)
    # A stage that fails is a solve that fails, whatever comes after it.
    nan = eqx.tree_at(lambda m: m.inputs.embedding.bias, FIRST, replace_fn=lambda x: x * np.nan)
    failed = stages_by_hand(nan, LAST)[-1]
    assert not bool(failed.succeeded) and failed.failed_at == 1


def test_stages_of_an_image_of_another_size():
    assert jax.eval_shape(MODEL, normal(12, 8, 2)).shape == (3,)
    assert MODEL.inputs.grid == MODEL.inputs.grid_of((8, 4, 2)) == (2, 1)
    assert MODEL.domain.num_tokens == 1 + 2
    # The rectangle of the stage has the area of its own 2 by 1 tokens; here are 3 by 2.
    states = np.ones((6, 4, 4))
    _, domain = small.embedded_by(LAST, states)
    assert domain.weights.tolist() == [1.0] + 6 * [pytest.approx(1 / 3)]
    with pytest.raises(ide.InputError, match=r"\(4, 4, 4\)"):
        ide.StagedModel((FIRST, small.stage((4, 4, 4), 4)))
