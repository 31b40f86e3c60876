"""Maps of functions on circles, intervals and their products, also with coarser grids."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest
from models import examples as small
from models.examples import WIDTH, normal, outputs_of
from published.numpy_blocks import layer_norm

import ide_transformer as ide


MODEL = small.operator_model()


def circle(n):
    return np.arange(n) / n


def lattice(*axes):
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def function(points):
    return np.cos(2 * np.pi * points).sum(-1) + np.sin(4 * np.pi * points[:, -1])


def test_it_is_the_equation_between_two_linear_maps():
    """On a periodic grid times that of a Gauss rule, with waves of half the length there."""
    points, options = (6, 8), dict(grid=("periodic", "gauss_legendre"))
    model = small.operator_model(points, operators=(small.attention,), **options)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    x = lattice(circle(6), (nodes + 1) / 2)
    a = function(x)
    waves = [
        turned(2 * np.pi * k * x[:, axis] / length)
        for axis, length in enumerate((1, 2))
        for turned in (np.cos, np.sin)
        for k in (1, 2)
    ]
    read_in, read = model.inputs.embedding, model.read_out.linear
    u0 = np.stack([a, *waves], axis=1) @ np.asarray(read_in.weight) + np.asarray(read_in.bias)
    domain = ide.TokenDomain(*jax.device_put((x, np.tile(weights / 2, 6))))
    u1 = small.solved_by_hand(ide.Equation(model.control, ide.Free(), domain), u0)
    expected = layer_norm(u1) @ np.asarray(read.weight)[:, 0] + np.asarray(read.bias)[0]
    assert largest(outputs_of(model, a.reshape(points)), expected.reshape(points)) < 1e-12
    assert largest(outputs_of(model, ide.Field(a, domain)), expected) < 1e-12


def test_another_grid_gives_the_same_function():
    """Sums over a periodic grid converge faster than any power of the number of points."""
    model = small.filled(small.operator_model, std=0.25)

    def outputs(points):
        return np.asarray(outputs_of(model, function(circle(points)[:, None])))

    exact = outputs(128)
    errors = [
        np.abs(outputs(n) - exact[:: 128 // n]).max() / np.abs(exact).max()
        for n in (16, 32, 64)
    ]
    assert errors[0] < 0.1 and errors[2] < 1e-4
    assert errors[1] / errors[0] < 0.1 and errors[2] / errors[1] < errors[1] / errors[0]
    with pytest.raises(ide.InputError, match=r"4 points cannot tell the 2 waves .* at least 5"):
        model(np.ones(4))


def test_points_around_a_circle_are_free_and_those_of_an_interval_are_not():
    field, moved = (
        ide.Field(np.arange(9.0), ide.TokenDomain(x[:, None]))
        for x in jax.device_put((np.linspace(1.1, 1.9, 9), np.linspace(0.1, 0.9, 9)))
    )
    assert largest(outputs_of(MODEL, field), outputs_of(MODEL, moved)) < 1e-10
    # What a compiled program is given cannot be refused.
    interval = small.operator_model(grid="midpoint", operators=(small.feed_forward,))
    assert np.isnan(outputs_of(interval, field)).all()
    with pytest.raises(ide.InputError, match=r"the point \[1.1\], outside of \[0, 1\] along"):
        interval(field)


def test_channels_come_first():
    model, u = small.operator_model((6, 8), channels=2), normal(3, 2, 6, 8)
    emulator = ide.ChannelsFirst(model)
    found, expected = jax.jit(lambda u: (emulator(u), model(jnp.moveaxis(u, 1, -1))))(u)
    assert largest(found, np.moveaxis(expected, -1, 1)) < 1e-12
    with pytest.raises(ide.InputError, match=r"\(6, 8\).*\.\.\., 2, points_1.*u\[None\]"):
        emulator(u[0, 0])
    assert jax.eval_shape(ide.ChannelsFirst(MODEL), np.ones((3, 1, 16))).shape == (3, 1, 16)


def u_shaped(domain, coarse):
    """A map from states to states, with so many coarser grids, pointwise at each."""
    feed_forward = lambda key: ide.FeedForward(WIDTH, key=key)  # noqa: E731
    level = small.state_model(domain, (feed_forward,), solver=diffrax.Heun())
    return ide.UShapedModel(level, (level,) * (2 * coarse))


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


def square(n):
    return ide.TokenDomain.periodic((n, n))


@pytest.mark.parametrize(
    ("make", "coarse", "sizes"),
    fast_first(1, [(ide.TokenDomain.midpoint, 2, (64, 128)), (square, 1, (16, 32))]),
)
def test_a_v_cycle_converges_at_order_2_up_to_the_ends(make, coarse, sizes):
    errors = []
    for n in sizes:
        model = small.filled(lambda n=n: u_shaped(make(n), coarse), std=0.25)
        waves = np.asarray(model.domain.points).sum(-1)[:, None] + np.arange(WIDTH) / 3
        u = np.cos(2 * np.pi * waves)
        errors.append(largest(outputs_of(model, u), eqx.filter_jit(limit)(model, u)))
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert abs(slopes[-1] - 2) < 0.15, (errors, slopes)


def test_a_v_cycle_is_on_other_grids_and_schemes():
    model = small.u_shaped_model()
    assert jax.eval_shape(model, np.ones(12)).shape == (12,)
    other = model.with_solver(ide.Strang())
    assert [type(part.solver) for part in other.equations] == [ide.Strang] * 3
    with pytest.raises(ide.InputError, match="factor=2 does not divide a grid of 9 tokens"):
        model(np.ones(9))
