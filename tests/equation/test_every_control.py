"""Every control does what `check_control` asks, and wrong ones do not; the weights at each
depth."""

import functools as ft
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.testing import check_control
from tests.conformance.constraints_and_controls import ControlConformance
from tests.equation.problems import apply, block_at, computed, state
from tests.helpers import built, classes_of, drawn, largest


KEY = jax.random.key(0)


def block(key):
    return (ide.equation.FeatureIntegral(3, key=key, normalization=ide.RMSNorm(jnp.ones(3))),)


BUILT = {
    ide.PiecewiseConstant: {},
    ide.PiecewiseLinear: {},
    ide.Tied: {},
    ide.Chebyshev: dict(terms=2),
    ide.equation.Hypernetwork: dict(terms=2, hidden=2, frequencies=1),
}


@pytest.mark.parametrize("kind", BUILT)
def test_every_class(kind):
    control = built(lambda: kind.build(block, 3, key=KEY, **BUILT[kind]))
    ControlConformance(control, BUILT[kind]).check()


def test_all_classes_are_here():
    classes = {*classes_of(ide.AbstractControl).values()}
    assert classes == {
        *BUILT,
        ide.equation.Functional,
        ide.equation.Rated,
        ide.equation.Sampled,
        ide.equation.Sourced,
    }


@pytest.mark.heavy
def test_controls_that_change_another_one():
    inner = built(lambda: ide.PiecewiseConstant.build(block, 3, key=KEY))
    space = ide.FunctionSpace(ide.Cosine(), 3, ide.FeatureDomain(5, "gauss_legendre"))
    ControlConformance(ide.equation.Functional(inner, space)).check(["precision"])
    ControlConformance(ide.equation.Rated(inner, jnp.asarray(1.5))).check(["precision"])
    dropped = ide.Tied((ide.Dropout(*block(KEY), 0.5),), 3)
    # Other intervals have other draws.
    ControlConformance(ide.equation.Sampled(dropped, KEY)).check(["resample", "extend"])
    injected = ide.PiecewiseLinear((ide.equation.Injection(drawn((4,), 1)),))
    ControlConformance(ide.equation.Sourced(injected, jnp.ones((2, 3)))).check(["precision"])


class Mine(ide.PiecewiseLinear):
    """Right or wrong in one way."""

    fault: str = eqx.field(static=True, default="right")

    def local(self, interval, s):
        block = super().local(interval, s)
        return jax.lax.stop_gradient(block) if self.fault == "gradient" else block

    def __call__(self, t):
        return super().__call__(t + 0.1 if self.fault == "march" else t)


def test_one_of_your_own_is_right_and_wrong_ones_are_noticed():
    mine = built(lambda: Mine.build(block, 3, key=KEY))
    check_control(mine)
    for fault in ("gradient", "march"):
        with pytest.raises(AssertionError, match=f"Mine, {fault}: "):
            check_control(replace(mine, fault=fault))


def test_every_layer_is_read_at_its_own_beginning():
    """On intervals of other lengths than 1 the beginnings are rounded, by a march in its own
    precision, by `Equation.knots` in double; just before them the layer is the one before."""
    for old, new in ((25, 25), (3, 7), (12, 14)):
        layers = np.arange(float(new))
        control = ide.PiecewiseConstant((ide.LayerNorm(gain=layers[:, None]),), old / new)
        length = control.interval_length
        starts = np.float32(layers) * np.float32(length), np.float32(layers * length)
        before = np.nextafter(np.minimum(*starts), np.float32(-1))[1:]
        gains = jax.jit(jax.vmap(lambda t, c=control: c(t)[0].gain[0]))
        layers_read = gains(np.concatenate([*starts, before]))
        assert (layers_read == np.concatenate([layers, layers, layers[:-1]])).all()


def linear_block(key):
    return (ide.FeedForward(4, 2, key=key, std=0.5),)


def weight_at(control, t):
    return block_at(control, t)[0].inner.weight


def build(kind):
    return computed(lambda: kind.build(linear_block, 5, key=KEY))


@ft.cache
def draws():
    """The weights of `linear_block` for each of the keys that a control makes."""
    weight = jax.vmap(lambda key: linear_block(key)[0].inner.weight)
    return np.asarray(computed(weight, jax.random.split(KEY, 5)))


def test_weights_are_constant_or_linear_between_the_drawn_ones():
    layers, linear = build(ide.PiecewiseConstant), build(ide.PiecewiseLinear)
    layer_weights, knots = draws(), np.asarray(linear.knots[0].inner.weight)
    for depth, layer in ((0.0, 0), (0.99, 0), (1.0, 1), (2.5, 2), (5.0, 4)):
        assert largest(weight_at(layers, depth), layer_weights[layer]) == 0
    for depth, weight in ((0, knots[0]), (1.25, 0.75 * knots[1] + 0.25 * knots[2])):
        assert largest(weight_at(linear, depth), weight) < 1e-15


def test_coarsening_averages():
    control = built(lambda: ide.PiecewiseConstant.build(linear_block, 4, key=KEY))
    w, coarse = np.asarray(control.blocks[0].inner.weight), control.resample(2)
    assert coarse.interval_length == 2.0
    assert largest(coarse.blocks[0].inner.weight[1], (w[2] + w[3]) / 2) < 1e-15
    thirds = control.resample(3).blocks[0].inner.weight
    assert largest(thirds[0], 0.75 * w[0] + 0.25 * w[1]) < 1e-15


def test_expansions_take_the_drawn_values_at_their_nodes():
    drawn, chebyshev = draws(), build(ide.Chebyshev)
    for j in range(5):
        node = 2.5 * (1 + np.cos(np.pi * (j + 0.5) / 5))
        assert largest(weight_at(chebyshev, node), drawn[j]) < 1e-13


def test_a_hypernetwork_is_a_network_of_sines_and_cosines():
    options = dict(terms=3, hidden=5, frequencies=2, key=KEY)
    control = built(lambda: ide.equation.Hypernetwork.build(linear_block, 4, **options))
    t, parts = 1.7, np.asarray(control.coefficients[0].inner.weight)
    angles = t / 4 * np.pi * np.array([1, 2])
    hidden = np.concatenate([np.sin(angles), np.cos(angles), [1]]) @ np.asarray(control.inner)
    z = np.append(hidden / (1 + np.exp(-hidden)), 1) @ np.asarray(control.outer)
    expected = parts[0] + z[0] * parts[1] + z[1] * parts[2]
    assert largest(weight_at(control, t), expected) < 1e-14


def test_draws_are_those_of_each_interval():
    layers, u = 400, np.asarray(state())
    nested = ide.Dropout(ide.Dropout(ide.Damping(2.0), 0.5), 0.25)
    block = ide.Dropout(ide.Damping(1.0), 0.25), nested
    control = ide.equation.Sampled(ide.Tied(block, layers), KEY)
    domain = ide.TokenDomain.uniform(6)
    rates = jax.jit(jax.vmap(lambda t: tuple(operator(u, domain) for operator in control(t))))
    at_starts, later = (list(map(np.asarray, rates(np.arange(layers) + s))) for s in (0.0, 0.7))
    assert all((x == y).all() for x, y in zip(at_starts, later, strict=True))
    for rate, share in zip(at_starts, (0.75, 0.375), strict=True):
        # A mask of its own in each layer.
        assert len(np.unique(rate == 0, axis=0)) == layers
        assert abs((rate != 0).mean() - share) < 0.02
    plain, dropped = np.broadcast_to(-u, at_starts[0].shape), at_starts[0] != 0
    assert largest(at_starts[0][dropped], plain[dropped] / 0.75) < 1e-14
    # Without a key nothing is left out.
    assert (apply(block[0], u) == -u).all()
