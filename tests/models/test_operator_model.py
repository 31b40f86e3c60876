"""`OperatorModel` on circles, intervals and their products, and at points of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.decoding import outputs_of

import ide_transformer as ide


FEATURES, MODES, POINTS = 4, 2, 16


def block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    attention = ide.Attention(FEATURES, 2, key=first, normalization=norm, std=1.0)
    return attention, ide.FeedForward(FEATURES, key=second, normalization=norm, std=0.3)


def operator_model(points=POINTS, **options):
    parts = dict(
        control=ide.PiecewiseConstant.build(block, 1, key=jax.random.key(1)),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        modes=MODES,
        std=0.5,
        key=jax.random.key(3),
    )
    return ide.OperatorModel(points, FEATURES, **(parts | options))


def function(points):
    return np.cos(2 * np.pi * points).sum(-1) + np.sin(4 * np.pi * points[:, -1])


def circle(n):
    return np.arange(n) / n


def lattice(*axes):
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def field(points):
    return ide.Field(np.ones(len(points)), ide.TokenDomain(jnp.asarray(points)))


@pytest.fixture(scope="module")
def model():
    return operator_model()


@pytest.mark.parametrize(
    ("points", "options", "lengths"),
    [
        (POINTS, {}, [1]),
        ((6, 8), {}, [1, 1]),
        ((6, 8), {"grid": ("periodic", "gauss_legendre")}, [1, 2]),
        ((6, 8), {"wavelength": 2.0}, [2, 2]),
    ],
)
def test_it_is_the_equation_between_two_linear_maps(points, options, lengths):
    model = operator_model(points, **options)
    axes = [circle(n) for n in np.atleast_1d(points)]
    weights = np.ones(axes[-1].size)
    if "grid" in options:
        nodes, weights = np.polynomial.legendre.leggauss(8)
        axes[-1], weights = (nodes + 1) / 2, weights / 2
    x = lattice(*axes)
    a = function(x)
    waves = [
        turned(2 * np.pi * k * x[:, axis] / length)
        for axis, length in enumerate(lengths)
        for turned in (np.cos, np.sin)
        for k in (1, 2)
    ]
    u0 = np.stack([a, *waves], axis=1) @ np.asarray(model.inputs.embedding.weight)
    weights = np.tile(weights, len(x) // len(weights))
    domain = ide.TokenDomain(jnp.asarray(x), jnp.asarray(weights))
    equation = ide.Equation(model.control, ide.Free(), domain)
    u1 = np.asarray(ide.solve(equation, jnp.asarray(u0), solver=ide.LieTrotter()).u1)
    centred = u1 - u1.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    expected = normal @ np.asarray(model.read_out.linear.weight)[:, 0]
    found = outputs_of(model, a.reshape(points))
    assert found.shape == a.reshape(points).shape
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-12)
    np.testing.assert_allclose(outputs_of(model, ide.Field(a, domain)), expected, atol=1e-12)


def test_another_grid_gives_the_same_function(model):
    """Sums over a periodic grid converge faster than any power of the number of points."""

    def outputs(points):
        return np.asarray(outputs_of(model, function(circle(points)[:, None])))

    exact = outputs(256)
    errors = [
        np.abs(outputs(n) - exact[:: 256 // n]).max() / np.abs(exact).max()
        for n in (16, 32, 64)
    ]
    assert errors[0] < 0.1 and errors[2] < 1e-4
    assert errors[1] / errors[0] < 0.1 and errors[2] / errors[1] < errors[1] / errors[0]


def test_it_sees_positions(model):
    a = function(circle(POINTS)[:, None])
    first, second = np.asarray(outputs_of(model, np.stack([a, np.roll(a, 3)])))
    assert np.abs(np.roll(second, -3) - first).max() > 1e-3


def test_batches_and_channels(model):
    a = np.stack([function(circle(POINTS)[:, None]), np.ones(POINTS), np.zeros(POINTS)])
    outputs = outputs_of(model, a.reshape(3, 1, POINTS))
    assert outputs.shape == (3, 1, POINTS)
    np.testing.assert_allclose(outputs[0, 0], outputs_of(model, a[0]), atol=1e-12)
    for points in (POINTS, (6, 8)):
        channelled = operator_model(points, channels=3)
        shape = (2, 5, *np.atleast_1d(points), 3)
        assert jax.eval_shape(channelled, jnp.ones(shape)).shape == shape
        values = jnp.ones((5, channelled.domain.num_tokens, 3))
        field = ide.Field(values, channelled.domain)
        assert jax.eval_shape(channelled, field).shape == values.shape


def test_scattered_points_converge_to_the_function_on_the_grid():
    """With the areas of their cells as weights; plain softmax stays away."""

    def wave(points):
        return np.cos(2 * np.pi * points[:, 0]) + np.sin(2 * np.pi * points[:, 1])

    def smooth(key):
        return (ide.Attention(FEATURES, 2, key=key, std=0.5),)

    control = ide.PiecewiseConstant.build(smooth, 1, key=jax.random.key(1))
    model = operator_model((6, 8), wavelength=2.0, control=control)
    fine = lattice(*[(np.arange(32) + 0.5) / 32] * 2)
    exact = outputs_of(model, ide.Field(wave(fine), ide.TokenDomain(jnp.asarray(fine))))
    x = lattice(*[np.sort(np.random.default_rng(0).random(32) ** 2) for _ in range(2)])
    errors = []
    for domain in (
        ide.TokenDomain.from_points(x, ((0.0, 1.0), (0.0, 1.0))),
        ide.TokenDomain(jnp.asarray(x)),
    ):
        seen = domain.with_queries(fine)
        values = outputs_of(model, ide.Field(wave(np.asarray(seen.points)), seen))
        errors.append(np.linalg.norm(values[len(x) :] - exact) / np.linalg.norm(exact))
    assert errors[0] < 0.02 < 0.1 < errors[1]


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


def test_a_functional_model_has_the_same_shapes():
    model = operator_model((6, 8))
    space = ide.FunctionSpace(ide.Cosine(), FEATURES, ide.FeatureDomain(2 * FEATURES))
    wide = dataclasses.replace(model, space=space)
    assert jax.eval_shape(wide, jnp.ones((3, 6, 8))).shape == (3, 6, 8)


def test_points_around_a_circle_are_free_and_those_of_an_interval_are_not():
    domain = ide.TokenDomain(jnp.linspace(1.0, 1.9, 9)[:, None])
    model = operator_model(9)
    moved = ide.TokenDomain(domain.points - 1.0)
    values = np.arange(9.0)
    np.testing.assert_allclose(
        outputs_of(model, ide.Field(values, domain)),
        outputs_of(model, ide.Field(values, moved)),
        atol=1e-10,
    )
    with pytest.raises(ide.InputError, match=r"outside of \[0, 1\] along"):
        operator_model(9, grid="midpoint")(ide.Field(values, domain))
    outputs = outputs_of(operator_model(9, grid="midpoint"), ide.Field(values, domain))
    assert np.isnan(outputs).all()


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({}, np.ones(4), r"4 points cannot tell the 2 waves .* at least 5 points"),
        ({}, np.ones(POINTS, int), r"\(16,\) and int"),
        ({}, np.ones(()), r"inputs of shape \(\)"),
        ({"channels": 2}, np.ones((POINTS, 3)), r"\(16, 3\).*channels=2"),
        ({"channels": 2}, np.ones(2), r"\[..., tokens, channels\]"),
        (
            {"points": (6, 8)},
            np.ones(48),
            r"shape \(48,\) .* takes \[..., points_1, points_2\]",
        ),
        ({"points": (6, 8)}, np.ones((4, 8)), "4 points cannot tell the 2 waves"),
        ({"points": (6, 8)}, field(np.ones((6, 1))), r"dimension 1, but .* \[tokens, 2\]"),
        (
            {"points": (6, 8), "wavelength": 2.0},
            field(np.full((6, 2), 1.5)),
            r"the point \[1.5, 1.5\], outside of \[",
        ),
    ],
)
def test_inputs_that_do_not_fit(unchecked, options, inputs, message):
    with pytest.raises(ide.InputError, match=message):
        operator_model(**options)(inputs)


def test_the_number_of_axes_of_a_grid():
    with pytest.raises(
        ide.InputError, match="points=8 for a model of functions in dimension 2"
    ):
        operator_model((6, 8)).inputs.points_of(8)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        ((6, 8), {"grid": ("periodic",)}, "give one rule for all axes, or one for each"),
        ((), {}, r"points=\(\)"),
        ((4, 8), {}, r"modes=2 on a grid of points=\(4, 8\); give at most 1"),
    ],
)
def test_arguments_that_do_not_fit(points, options, message):
    with pytest.raises(ide.InputError, match=message):
        operator_model(points, **options)
