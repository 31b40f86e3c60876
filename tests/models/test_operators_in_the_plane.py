"""`OperatorModel` on products of circles and intervals, and `Field` at points of its own."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide


FEATURES, MODES = 4, 2


def block(key):
    return (ide.Attention(FEATURES, 2, key=key, std=0.5),)


def operator_model(points=(6, 8), **options):
    return ide.OperatorModel(
        points,
        FEATURES,
        control=ide.PiecewiseConstant.build(block, 1, key=jax.random.key(1)),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        modes=MODES,
        std=0.5,
        key=jax.random.key(3),
        **options,
    )


def function(points):
    return np.cos(2 * np.pi * points[:, 0]) + np.sin(2 * np.pi * points[:, 1])


@eqx.filter_jit
def outputs_of(model, inputs):
    return model(inputs)


def lattice(*axes):
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({}, (1, 1)),
        ({"grid": ("periodic", "gauss_legendre")}, (1, 2)),
        ({"wavelength": 2.0}, (2, 2)),
    ],
)
def test_it_is_the_equation_at_the_points_of_a_product(options, lengths):
    model = operator_model(**options)
    rules = options.get("grid", ("periodic", "periodic"))
    first, (second, weights) = np.arange(6) / 6, (np.arange(8) / 8, np.ones(8))
    if rules[1] == "gauss_legendre":
        second, weights = np.polynomial.legendre.leggauss(8)
        second, weights = (second + 1) / 2, weights / 2
    x = lattice(first, second)
    a = function(x)
    waves = [
        turned(2 * np.pi * k * x[:, axis] / length)
        for axis, length in enumerate(lengths)
        for turned in (np.cos, np.sin)
        for k in (1, 2)
    ]
    u0 = np.stack([a, *waves], axis=1) @ np.asarray(model.inputs.embedding.weight)
    domain = ide.TokenDomain(jnp.asarray(x), jnp.asarray(np.tile(weights, 6)))
    equation = ide.Equation(model.control, ide.Free(), domain)
    u1 = ide.solve(equation, jnp.asarray(u0), solver=ide.LieTrotter()).u1
    expected = np.asarray(model.outputs(u1))
    found = outputs_of(model, a.reshape(6, 8))
    assert found.shape == (6, 8)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-12)
    np.testing.assert_allclose(outputs_of(model, ide.Field(a, domain)), expected, atol=1e-12)


def test_batches_and_channels():
    model = operator_model(channels=3)
    shape = (2, 5, 6, 8, 3)
    assert jax.eval_shape(model, jnp.ones(shape)).shape == shape
    field = ide.Field(jnp.ones((5, 48, 3)), model.domain)
    assert jax.eval_shape(model, field).shape == (5, 48, 3)


def test_scattered_points_converge_to_the_function_on_the_grid():
    """With the areas of their cells as weights; plain softmax stays away."""
    model = operator_model(wavelength=2.0)
    fine = lattice(*[(np.arange(32) + 0.5) / 32] * 2)
    exact = outputs_of(model, ide.Field(function(fine), ide.TokenDomain(jnp.asarray(fine))))
    x = lattice(*[np.sort(np.random.default_rng(0).random(32) ** 2) for _ in range(2)])
    errors = []
    for domain in (
        ide.TokenDomain.from_points(x, ((0.0, 1.0), (0.0, 1.0))),
        ide.TokenDomain(jnp.asarray(x)),
    ):
        seen = domain.with_queries(fine)
        values = outputs_of(model, ide.Field(function(np.asarray(seen.points)), seen))
        errors.append(np.linalg.norm(values[len(x) :] - exact) / np.linalg.norm(exact))
    assert errors[0] < 0.02 < 0.1 < errors[1]


def test_a_functional_model_has_the_same_shapes():
    model = operator_model()
    space = ide.FunctionSpace(ide.Cosine(), FEATURES, ide.FeatureDomain(2 * FEATURES))
    wide = dataclasses.replace(model, space=space)
    assert jax.eval_shape(wide, jnp.ones((3, 6, 8))).shape == (3, 6, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: m(np.ones(48)), r"shape \(48,\) .* takes \[..., points_1, points_2\]"),
        (lambda m: m(np.ones((4, 8))), "4 points cannot tell the 2 waves"),
        (lambda m: m(field(np.ones((6, 1)))), r"dimension 1, but .* \[tokens, 2\]"),
        (lambda m: m(field(np.full((6, 2), 1.5))), r"the point \[1.5, 1.5\], outside of \["),
        (lambda m: m.inputs.points_of(8), "points=8 for a model of functions in dimension 2"),
        (lambda m: ide.error_budget(m, lambda x: x[:, 0]), "functions in dimension 2"),
    ],
)
def test_inputs_that_do_not_fit(make, message):
    with pytest.raises(ide.InputError, match=message):
        make(operator_model(wavelength=2.0))


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


def field(points):
    return ide.Field(np.ones(len(points)), ide.TokenDomain(jnp.asarray(points)))
