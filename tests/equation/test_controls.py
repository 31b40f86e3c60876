"""Weights at each depth; `test_every_control` has what all controls do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import (
    apply,
    block_at,
    equations_of,
    linear_block,
    made,
    state,
    weight_at,
)
from helpers import largest

import ide_transformer as ide


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layer_is_read_at_its_own_beginning(dtype):
    """On intervals of other lengths than 1 the beginnings are rounded, by a march in its own
    precision, by `Equation.knots` in double; just before them the layer is the one before."""
    for old, new in ((25, 25), (3, 7), (4, 14), (1, 9), (12, 14)):
        layers = np.arange(float(new))
        control = ide.PiecewiseConstant((ide.LayerNorm(gain=layers[:, None]),), old / new)
        length = np.asarray(control.interval_length, dtype)
        starts = layers.astype(dtype) * length, (layers * control.interval_length).astype(dtype)
        before = np.nextafter(np.minimum(*starts), dtype(-1))[1:]
        ts = np.concatenate([*starts, before])
        gains = jax.jit(jax.vmap(lambda t, c=control: c(t)[0].gain[0]))(ts)
        assert (gains == np.concatenate([layers, layers, layers[:-1]])).all()


KEY = jax.random.key(0)


def build(kind, number, make=linear_block, **options):
    return made(lambda: kind.build(make, number, key=KEY, **options))


def draws(number, key=KEY):
    """The weights of `linear_block` for each of the keys that a control makes."""
    weight = jax.vmap(lambda key: linear_block(key)[0].inner.weight)
    return np.asarray(made(weight, jax.random.split(key, number)))


def test_weights_are_constant_or_linear_between_the_drawn_ones():
    layers, linear = build(ide.PiecewiseConstant, 3), build(ide.PiecewiseLinear, 3)
    drawn, knots = draws(3), np.asarray(linear.knots[0].inner.weight)
    for depth, layer in ((0.0, 0), (0.99, 0), (1.0, 1), (2.5, 2), (3.0, 2)):
        assert largest(weight_at(layers, depth), drawn[layer]) == 0
    for depth in range(4):
        assert largest(weight_at(linear, depth), knots[depth]) == 0
    assert largest(weight_at(linear, 1.25), 0.75 * knots[1] + 0.25 * knots[2]) < 1e-15


def test_coarsening_averages():
    control = build(ide.PiecewiseConstant, 4)
    weights = np.asarray(control.blocks[0].inner.weight)
    coarse, thirds = control.resample(2), control.resample(3)
    assert coarse.interval_length == 2.0
    assert largest(weight_at(coarse, 3.0), (weights[2] + weights[3]) / 2) < 1e-15
    assert largest(weight_at(thirds, 0.0), 0.75 * weights[0] + 0.25 * weights[1]) < 1e-15


def test_expansions_take_the_drawn_values_at_their_nodes():
    drawn, fourier, chebyshev = draws(5), build(ide.Fourier, 5), build(ide.Chebyshev, 5)
    for j in range(5):
        assert largest(weight_at(fourier, float(j)), drawn[j]) < 1e-13
        node = 2.5 * (1 + np.cos(np.pi * (j + 0.5) / 5))
        assert largest(weight_at(chebyshev, node), drawn[j]) < 1e-13


def test_a_hypernetwork_is_a_network_of_sines_and_cosines():
    control = build(ide.Hypernetwork, 4, terms=3, hidden=5, frequencies=2)
    t, parts = 1.7, np.asarray(control.coefficients[0].inner.weight)
    angles = t / 4 * np.pi * np.array([1, 2])
    hidden = np.concatenate([np.sin(angles), np.cos(angles), [1]]) @ np.asarray(control.inner)
    z = np.append(hidden / (1 + np.exp(-hidden)), 1) @ np.asarray(control.outer)
    expected = parts[0] + z[0] * parts[1] + z[1] * parts[2]
    assert largest(weight_at(control, t), expected) < 1e-14
    drawn = draws(3, jax.random.split(KEY, 3)[0])
    assert largest(parts[2], (drawn[2] - drawn[1]) / np.sqrt(2)) < 1e-15


@pytest.mark.parametrize("control", [ide.Chebyshev, ide.Fourier, ide.Hypernetwork])
def test_what_is_the_same_in_every_draw_does_not_vary_with_depth(control):
    theta = build(control, 5, lambda key: (ide.LayerNorm(jnp.full(3, 2.0)),))
    for t in (0.0, 1.7, 5.0):
        assert largest(block_at(theta, t)[0].gain, 2.0) < 1e-12


def test_a_march_looks_smooth_weights_up():
    """The loop over layers holds no product with the basis: it was made before."""
    theta = build(ide.Chebyshev, 5)
    equation = ide.Equation(theta, ide.Free(), ide.TokenDomain.uniform(6))

    def solve(u0):
        return ide.solve(equation, u0, solver=ide.LieTrotter(), throw=False).u1

    traced = jax.make_jaxpr(solve)(state()).jaxpr
    loops = [e for e in equations_of(traced) if e.primitive.name == "scan"]
    assert loops
    terms = {x.shape for x in jax.tree.leaves(eqx.filter(theta.coefficients, eqx.is_array))}
    for loop in loops:
        inside = equations_of(loop.params["jaxpr"].jaxpr)
        assert not any(v.aval.shape in terms for e in inside for v in e.invars)


def test_draws_are_those_of_each_interval_and_layers_are_left_out_whole():
    layers = 400
    block = (ide.Damping(1.0), ide.Dropout(ide.Damping(2.0), 0.5))
    block = tuple(ide.LayerDrop(operator, 0.25) for operator in block)
    control = ide.Sampled(ide.Tied(block, layers), KEY)
    u, domain = state(), ide.TokenDomain.uniform(6)
    rates = jax.jit(jax.vmap(lambda t: tuple(operator(u, domain) for operator in control(t))))
    begun, later = (list(map(np.asarray, rates(np.arange(layers) + s))) for s in (0.0, 0.7))
    assert all((x == y).all() for x, y in zip(begun, later, strict=True))
    u, kept, masks = np.asarray(u), [], set()
    for damped, dropped in zip(*begun, strict=True):
        assert (damped == (0 if (damped == 0).all() else -u)).all()
        assert (dropped == 0).all() == (damped == 0).all()
        kept.append(bool((damped != 0).any()))
        masks.add((dropped == 0).tobytes())
    assert abs(np.mean(kept) - 0.75) < 0.07
    assert len(masks) == sum(kept) + 1  # dropout inside has a mask of its own in each layer
    assert (apply(block[0], state()) == -u).all()  # without a key nothing is left out


class Numbered(ide.AbstractOperator):
    """An operator with whole numbers beside its weights."""

    weight: jax.Array
    number: jax.Array

    def __call__(self, u, domain):
        return self.weight * u


@pytest.mark.parametrize("control", [ide.PiecewiseLinear, ide.Chebyshev])
def test_whole_numbers_are_not_interpolated(control):
    numbers = jnp.arange(32)
    built = build(control, 2, lambda key: (Numbered(jax.random.normal(key), numbers),))
    np.testing.assert_array_equal(block_at(built, 0.1)[0].number, numbers)
