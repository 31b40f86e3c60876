import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import apply, block_at, linear_block, small_equation, state, weight_at
from helpers import WIDTH, largest

import ide_transformer as ide


def test_piecewise_constant_layers(key):
    keys = jax.random.split(key, 3)
    control = ide.PiecewiseConstant(eqx.filter_vmap(linear_block)(keys))
    for depth, layer in ((0.0, 0), (0.99, 0), (1.0, 1), (2.5, 2), (3.0, 2)):
        expected = linear_block(keys[layer])[0].inner.weight
        assert (weight_at(control, depth) == expected).all()


@pytest.mark.parametrize("intervals", [25, 49])
def test_every_layer_is_read_in_float32(intervals):
    """`floor(t L)` on [0, 1] picks wrong layers for these numbers; depth in layers does not."""
    ts = jnp.asarray(np.arange(intervals), jnp.float32)
    control = ide.PiecewiseConstant((ide.LayerNorm(gain=ts[:, None]),))
    gains = jax.jit(jax.vmap(lambda t: control(t)[0].gain[0]))(ts)
    assert (gains == ts).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_layer_is_read_at_its_own_beginning(dtype):
    """On intervals of other lengths than 1 the beginnings are rounded, by a march in its own
    precision, by `Equation.knots` in double; just before them the layer is the one before."""
    for old, new in ((3, 7), (4, 14), (6, 14), (1, 9), (12, 14)):
        layers = np.arange(float(new))
        control = ide.PiecewiseConstant((ide.LayerNorm(gain=layers[:, None]),), old / new)
        length = np.asarray(control.interval_length, dtype)
        starts = layers.astype(dtype) * length, (layers * control.interval_length).astype(dtype)
        before = np.nextafter(np.minimum(*starts), dtype(-1))[1:]
        ts = np.concatenate([*starts, before])
        gains = jax.jit(jax.vmap(lambda t, c=control: c(t)[0].gain[0]))(ts)
        assert (gains == np.concatenate([layers, layers, layers[:-1]])).all()


def test_piecewise_linear(key):
    control = ide.PiecewiseLinear.build(linear_block, 2, key=key)
    knots = np.asarray(control.knots[0].inner.weight)
    assert control.num_intervals == 2
    for depth in (0.0, 1.0, 2.0):
        assert (weight_at(control, depth) == knots[int(depth)]).all()
    assert largest(weight_at(control, 1.25), 0.75 * knots[1] + 0.25 * knots[2]) < 1e-15


def test_tied(key):
    control = ide.Tied(linear_block(key), 5)
    assert control.num_intervals == 5
    assert (weight_at(control, 0.3) == weight_at(control, 4.9)).all()


# Those that can be trained from scratch, found by class.
CONTROLS = [
    x
    for x in vars(ide).values()
    if inspect.isclass(x) and issubclass(x, ide.AbstractControl) and hasattr(x, "build")
]


@pytest.mark.parametrize("control", CONTROLS)
def test_refining_a_control_keeps_its_weights(control, key):
    bound = 1e-14 if issubclass(control, ide.AbstractExpansion) else 1e-15
    coarse = control.build(linear_block, 2, key=key)
    fine = coarse.resample(6)
    assert (fine.num_intervals, fine.horizon) == (6, coarse.horizon)
    for t in (0.0, 0.4, 0.9, 1.0, 1.7, 2.0):
        assert largest(weight_at(coarse, t), weight_at(fine, t)) < bound


def test_refining_a_control_keeps_the_solution():
    equation = small_equation(ide.PiecewiseConstant, 2)
    fine = ide.Equation(equation.control.resample(6), ide.Free(), equation.domain)
    u0 = state()
    one = ide.solve(equation, u0, solver=ide.LieTrotter(), steps_per_interval=3).u1
    other = ide.solve(fine, u0, solver=ide.LieTrotter(), steps_per_interval=1).u1
    assert largest(one, other) < 1e-12


def test_coarsening_averages(key):
    control = ide.PiecewiseConstant.build(linear_block, 4, key=key)
    weights = np.asarray(control.blocks[0].inner.weight)
    coarse = control.resample(2)
    assert coarse.interval_length == 2.0
    assert largest(weight_at(coarse, 3.0), (weights[2] + weights[3]) / 2) < 1e-15
    thirds = control.resample(3)
    assert largest(weight_at(thirds, 0.0), 0.75 * weights[0] + 0.25 * weights[1]) < 1e-15


def test_sampled_draws_once_per_interval(key):
    def block(key):
        return (ide.Dropout(ide.FeedForward(WIDTH, 4, key=key, std=0.5), 0.5),)

    control = ide.Sampled(ide.Tied(block(key), 3), key)
    u, domain = state(), ide.TokenDomain.uniform(6)
    zero = [apply(*block_at(control, t), u, domain) == 0 for t in (0.0, 0.7, 1.0)]
    assert (zero[0] == zero[1]).all()
    assert not (zero[0] == zero[2]).all()
    equation = ide.Equation(control, ide.Free(), domain)
    by_hand = u
    for t in range(3):
        by_hand = by_hand + apply(*block_at(control, float(t)), by_hand, domain)
    assert largest(ide.solve(equation, u, solver=ide.LieTrotter()).u1, by_hand) < 1e-13


def test_layers_are_left_out_whole_and_so_often(key):
    layers = 400

    def block(key):
        rates = (ide.Damping(1.0), ide.Dropout(ide.Damping(2.0), 0.5))
        return tuple(ide.LayerDrop(rate, 0.25) for rate in rates)

    control = ide.Sampled(ide.Tied(block(key), layers), key)
    u, domain = state(), ide.TokenDomain.uniform(6)
    rates = jax.vmap(lambda t: tuple(operator(u, domain) for operator in control(t)))
    pairs = map(np.asarray, jax.jit(rates)(np.arange(float(layers))))
    u, kept, masks = np.asarray(u), [], set()
    for damped, dropped in zip(*pairs, strict=True):
        assert (damped == (0 if (damped == 0).all() else -u)).all()
        assert (dropped == 0).all() == (damped == 0).all()
        kept.append(bool((damped != 0).any()))
        masks.add((dropped == 0).tobytes())
    assert abs(np.mean(kept) - 0.75) < 0.07
    assert len(masks) == sum(kept) + 1  # dropout inside has a mask of its own in each layer
    trained = block(key)[0]
    assert (trained(u, domain) == -u).all()  # without a key nothing is left out


class Numbered(ide.AbstractOperator):
    """An operator with whole numbers beside its weights."""

    weight: jax.Array
    number: jax.Array

    configurable = False

    def __call__(self, u, domain):
        return self.weight * u


@pytest.mark.parametrize("control", [ide.PiecewiseLinear, ide.Chebyshev])
def test_whole_numbers_are_not_interpolated(control):
    numbers = jnp.arange(32)
    built = control.build(
        lambda key: (Numbered(jax.random.normal(key), numbers),), 2, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(block_at(built, 0.1)[0].number, numbers)
    equation = ide.Equation(built, ide.Free(), ide.TokenDomain.uniform(3))
    assert jnp.isfinite(ide.solve(equation, jnp.ones((3, 2)), solver=ide.LieTrotter()).u1).all()
