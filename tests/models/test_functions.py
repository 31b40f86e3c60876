"""Maps of functions on circles, intervals and their products, also with coarser grids."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest
from models.examples import (
    WIDTH,
    attention,
    feed_forward,
    filled,
    normal,
    operator_model,
    outputs_of,
    solved_by_hand,
    state_model,
    u_shaped_model,
)

import ide_transformer as ide


MODEL = filled(operator_model)


def circle(n):
    return np.arange(n) / n


def lattice(*axes):
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def function(points):
    return np.cos(2 * np.pi * points).sum(-1) + np.sin(4 * np.pi * points[:, -1])


@pytest.mark.parametrize(
    ("points", "options", "lengths"),
    [
        (16, {"wavelength": 2.0}, [2]),
        ((6, 8), {"grid": ("periodic", "gauss_legendre")}, [1, 2]),
    ],
)
def test_it_is_the_equation_between_two_linear_maps(points, options, lengths):
    model = filled(lambda: operator_model(points, operators=(attention,), **options))
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
    read_in, read = model.inputs.embedding, model.read_out.linear
    u0 = np.stack([a, *waves], axis=1) @ np.asarray(read_in.weight) + np.asarray(read_in.bias)
    weights = np.tile(weights, len(x) // len(weights))
    domain = ide.TokenDomain(*jax.device_put((x, weights)))
    u1 = np.asarray(solved_by_hand(ide.Equation(model.control, ide.Free(), domain), u0))
    normal_states = (u1 - u1.mean(1, keepdims=True)) / np.sqrt(u1.var(1, keepdims=True) + 1e-5)
    expected = normal_states @ np.asarray(read.weight)[:, 0] + np.asarray(read.bias)[0]
    found = outputs_of(model, a.reshape(points))
    assert found.shape == a.reshape(points).shape
    assert largest(found.ravel(), expected) < 1e-12
    assert largest(outputs_of(model, ide.Field(a, domain)), expected) < 1e-12


def test_another_grid_gives_the_same_function():
    """Sums over a periodic grid converge faster than any power of the number of points."""
    model = filled(operator_model, std=0.25)

    def outputs(points):
        return np.asarray(outputs_of(model, function(circle(points)[:, None])))

    exact = outputs(256)
    errors = [
        np.abs(outputs(n) - exact[:: 256 // n]).max() / np.abs(exact).max()
        for n in (16, 32, 64)
    ]
    assert errors[0] < 0.1 and errors[2] < 1e-4
    assert errors[1] / errors[0] < 0.1 and errors[2] / errors[1] < errors[1] / errors[0]


def test_functions_at_points_of_their_own_may_have_steps_of_their_own():
    weighted = ide.TokenDomain.midpoint(16).padded(np.arange(16) < np.array([[16], [9], [12]]))
    inputs = ide.Field(normal(3, 16), weighted)
    each = MODEL.with_options(steps_for="sample")
    assert largest(outputs_of(each, inputs), outputs_of(MODEL, inputs)) < 1e-12


def test_points_around_a_circle_are_free_and_those_of_an_interval_are_not():
    field, moved = (
        ide.Field(np.arange(9.0), ide.TokenDomain(x[:, None]))
        for x in jax.device_put((np.linspace(1.1, 1.9, 9), np.linspace(0.1, 0.9, 9)))
    )
    assert largest(outputs_of(MODEL, field), outputs_of(MODEL, moved)) < 1e-10
    # What a compiled program is given cannot be refused.
    interval = filled(lambda: operator_model(grid="midpoint", operators=(feed_forward,)))
    assert np.isnan(outputs_of(interval, field)).all()
    with pytest.raises(ide.InputError, match=r"the point \[1.1\], outside of \[0, 1\] along"):
        interval(field)


def test_a_flow_is_rolled_out_as_a_stepper_of_exponax():
    exponax = pytest.importorskip("exponax")
    points, channels, velocity = (9, 9), 2, jax.device_put(np.array([0.3, -0.1]))
    emulator = ide.ChannelsFirst(
        ide.OperatorModel(
            points,
            channels,
            control=ide.Tied((ide.Advection(velocity),), 1),
            constraint=ide.Free(),
            discretization=ide.Discretization(ide.ExactFlow()),
            channels=channels,
            output_normalization=ide.Free(),
            key=jax.random.key(0),
            modes=0,
        )
    )
    emulator = eqx.tree_at(
        lambda x: (x.model.inputs.embedding.weight, x.model.read_out.linear.weight),
        emulator,
        [jax.device_put(np.eye(channels))] * 2,
    )
    u0 = normal(2, channels, *points)

    @jax.jit
    def rolled_out(u0):
        # A stepper takes one sample of one channel; this one any batch axes, too.
        flow = exponax.stepper.Advection(len(points), 1.0, 9, 1.0, velocity=velocity)
        each = jax.vmap(jax.vmap(exponax.rollout(flow, 2)))(u0[:, :, None])
        return exponax.rollout(emulator, 2)(u0), each

    with jax.numpy_rank_promotion("allow"):
        found, expected = map(np.asarray, rolled_out(u0))
    assert largest(found, np.moveaxis(expected[:, :, :, 0], 2, 0)) < 1e-12
    with pytest.raises(ide.InputError, match=r"\(9, 9\).*\.\.\., 2, points_1.*u\[None\]"):
        emulator(u0[0, 0])
    assert jax.eval_shape(ide.ChannelsFirst(MODEL), np.ones((3, 1, 16))).shape == (3, 1, 16)


@pytest.mark.parametrize(
    ("kind", "channels"), [("ordinary", None), ("functional", 2), ("u-shaped", 2)]
)
def test_outputs_have_the_shape_of_the_inputs(kind, channels):
    model = filled(lambda: operator_model((8, 8), channels=channels))
    if kind == "functional":
        model = ide.functional(model).on(ide.Mesh(width=2 * WIDTH))
    if kind == "u-shaped":
        model = ide.UShapedModel(model, (state_model(model.domain),) * 2)
    inputs = jnp.ones((3, 5, 8, 8) if channels is None else (3, 5, 8, 8, channels))
    assert jax.eval_shape(model, inputs).shape == inputs.shape
    at_points = ide.Field(inputs.reshape(3, 5, 64, *inputs.shape[4:]), model.domain)
    assert jax.eval_shape(model, at_points).shape == at_points.values.shape


PLANE = dict(points=(6, 8))


@pytest.mark.parametrize(
    ("options", "inputs", "message"),
    [
        ({}, np.ones(4), r"4 points cannot tell the 2 waves .* at least 5 points"),
        ({"channels": 2}, np.ones((16, 3)), r"\(16, 3\).* tokens, channels\], channels=2"),
        (
            PLANE,
            ide.Field(np.ones(6), ide.TokenDomain(jnp.ones((6, 1)))),
            r"points of shape \(6, 1\), but .* \[tokens, 2\]",
        ),
        (PLANE | {"grid": ("periodic",)}, None, "give one rule for all axes, or one for each"),
    ],
)
def test_what_does_not_fit(unchecked, options, inputs, message):
    with pytest.raises(ide.InputError, match=message):
        filled(lambda: operator_model(**options))(inputs)


def u_shaped(domain, coarse):
    """A map from states to states, with so many coarser grids, pointwise at each."""

    def pointwise(key):
        return ide.FeedForward(WIDTH, key=key)

    def level(seed):
        return state_model(domain, (pointwise,), seed, solver=diffrax.Heun())

    return ide.UShapedModel(level(99), tuple(level(seed) for seed in range(2 * coarse)))


def limit(model, u, level=0):
    """The result on infinitely fine grids, where R and P are the identity: all solves by
    themselves, at each point."""

    def flow(model, u):
        domain = ide.TokenDomain.uniform(len(u))
        equation = ide.Equation(model.control, ide.Free(), domain)
        return ide.solve(equation, u, solver=diffrax.Heun()).u1

    levels = model.inputs.levels
    v = flow(levels[level], u)
    if level == len(levels) // 2:
        return v
    w = limit(model, v, level + 1)
    return flow(model if level == 0 else levels[-level], w)


@pytest.mark.parametrize(
    ("make", "coarse", "sizes"),
    [
        (ide.TokenDomain.midpoint, 2, (64, 128)),
        pytest.param(
            lambda n: ide.TokenDomain.periodic((n, n)), 1, (16, 32), marks=pytest.mark.heavy
        ),
    ],
)
def test_a_v_cycle_converges_at_order_2_up_to_the_ends(make, coarse, sizes):
    errors = []
    for n in sizes:
        model = filled(lambda n=n: u_shaped(make(n), coarse), std=0.25)
        waves = np.asarray(model.domain.points).sum(-1)[:, None] + np.arange(WIDTH) / 3
        u = np.cos(2 * np.pi * waves)
        errors.append(largest(outputs_of(model, u), eqx.filter_jit(limit)(model, u)))
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert abs(slopes[-1] - 2) < 0.15, (errors, slopes)


def test_a_v_cycle_is_on_other_grids_and_schemes():
    model = filled(u_shaped_model)
    assert jax.eval_shape(model, np.ones(12)).shape == (12,)
    solution = jax.eval_shape(lambda x: model.solve(x), np.ones(8))
    assert solution.u1.shape == (8, WIDTH)
    other = model.with_solver(ide.Strang())
    assert [type(part.solver) for part in other.equations] == [ide.Strang] * 3
    levels, one = model.inputs.levels, model.with_inputs(model.inputs.inputs)
    wide = (state_model(model.domain, width=4),) * 2
    for call, message in (
        (lambda: ide.UShapedModel(one, levels[:1]), "1 levels; give two for one coarser grid"),
        (lambda: ide.UShapedModel(one, wide)(np.ones(8)), "GridInputs acts on 4 features"),
        (lambda: model(np.ones(9)), "factor=2 does not divide a grid of 9 tokens"),
        (lambda: levels[0](np.ones((7, WIDTH))), r"states of shape .* a grid of 8 tokens"),
    ):
        with pytest.raises(ide.InputError, match=message):
            call()
