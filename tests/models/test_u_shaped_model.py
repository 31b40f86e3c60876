"""Equations on a grid, on coarser ones and back."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import largest
from models.decoding import outputs_of

import ide_transformer as ide
from ide_transformer.tasks import Batch, RelativeError
from ide_transformer.training.step import initial_state, make_train_step


WIDTH, STEPS, KEY = 3, 2, jax.random.key(0)
PARTS = dict(constraint=ide.Free(), discretization=ide.Discretization(diffrax.Heun()))


def control(seed, std=0.25):
    operator = ide.FeedForward(WIDTH, key=jax.random.key(seed), std=std)
    return ide.Tied((operator,), STEPS)


def u_shaped(domain, coarse):
    """A map from states to states, with so many coarser grids."""

    def level(seed):
        return ide.StateModel(domain, WIDTH, control=control(seed), **PARTS)

    return ide.UShapedModel(level(99), tuple(level(seed) for seed in range(2 * coarse)))


@eqx.filter_jit
def u_shaped_on(make, n, coarse):
    """Made by one program; each operation by itself would be one."""
    return u_shaped(make(n), coarse)


def midpoints(*shape):
    domain = ide.TokenDomain.midpoint(shape[0])
    for n in shape[1:]:
        domain = domain.product(ide.TokenDomain.midpoint(n))
    return domain


def smooth(points):
    waves = [np.cos(2 * np.pi * (points.sum(-1) + k / 3)) for k in range(WIDTH)]
    return np.stack(waves, axis=-1)


@eqx.filter_jit
def flow(model, u):
    """The solution at points by themselves: all its operators are pointwise."""
    equation = ide.Equation(model.control, ide.Free(), ide.TokenDomain.uniform(len(u)))
    return ide.solve(equation, u, solver=diffrax.Heun()).u1


def limit(model, u, level=0):
    """The result on infinitely fine grids, where R and P are the identity."""
    down, depth = model.inputs.levels, len(model.inputs.levels) // 2
    v = np.asarray(flow(down[level], u))
    if level == depth:
        return v
    w = v + limit(model, v, level + 1) - v
    return flow(model if level == 0 else down[2 * depth - level], w)


@pytest.mark.parametrize(
    ("make", "coarse", "sizes"),
    [
        (lambda n: midpoints(n), 2, (64, 128)),
        (lambda n: ide.TokenDomain.periodic((n, n)), 1, (16, 32)),
        (lambda n: midpoints(n, n), 1, (32, 64)),
    ],
)
def test_it_converges_at_order_2_up_to_the_ends(make, coarse, sizes):
    errors = []
    for n in sizes:
        model = u_shaped_on(make, n, coarse)
        u = smooth(np.asarray(model.domain.points))
        errors.append(largest(outputs_of(model, u), limit(model, u)))
    slopes = -np.diff(np.log(errors)) / np.log(2)
    assert abs(slopes[-1] - 2) < 0.15, (errors, slopes)


@pytest.mark.parametrize("domain", [midpoints(8), midpoints(4, 6)])
def test_to_the_coarser_grid_and_back_keeps_linear_functions(domain):
    coarse = ide.coarsened(domain)
    x = np.asarray(domain.points)
    linear = jnp.asarray(x @ np.arange(2.0, 2.0 + x.shape[1]) + 1)[:, None]
    down, up = ide.interpolation(domain, coarse), ide.interpolation(coarse, domain)
    assert largest(up(down(linear)), linear) < 1e-13
    assert largest(down(up(down(linear))), down(linear)) < 1e-13
    # The mean of a block, so that the integral stays.
    random = np.random.default_rng(0).normal(size=(domain.num_tokens, 1))
    blocks = random.reshape([n for side in coarse.grid for n in (side, 2)])
    means = blocks.mean(axis=tuple(range(1, blocks.ndim, 2))).ravel()
    assert largest(down(jnp.asarray(random))[:, 0], means) < 1e-13


def test_a_coarser_grid_on_which_nothing_happens_changes_nothing():
    domain = ide.TokenDomain.uniform((4, 4))
    model = u_shaped(domain, 1)
    still = eqx.tree_at(
        lambda m: m.inputs.levels[1].control, model, ide.Tied((ide.Damping(0.0),), STEPS)
    )
    u = np.random.default_rng(0).standard_normal((2, 16, WIDTH))
    last = model.with_inputs(model.inputs.inputs)
    expected = outputs_of(last, outputs_of(model.inputs.levels[0], u))
    assert largest(outputs_of(still, u), expected) < 1e-13


@pytest.fixture(scope="module")
def operator_model():
    """One of functions on the circle, with attention."""

    def attention(key):
        return (ide.Attention(WIDTH, 1, key=key, std=0.5),)

    parts = dict(PARTS, discretization=ide.Discretization(ide.LieTrotter()))
    model = ide.OperatorModel(
        8,
        WIDTH,
        control=ide.PiecewiseConstant.build(attention, 2, key=jax.random.key(0)),
        modes=3,
        std=0.3,
        key=jax.random.key(1),
        **parts,
    )
    levels = [
        ide.StateModel(
            model.domain,
            WIDTH,
            control=ide.PiecewiseConstant.build(attention, 1, key=jax.random.key(seed)),
            **parts,
        )
        for seed in (2, 3)
    ]
    return ide.UShapedModel(model, tuple(levels))


@pytest.mark.heavy
def test_it_is_trained_as_any_model(operator_model):
    inputs = np.random.default_rng(0).standard_normal((4, 8))
    batch = Batch(inputs, 2 * inputs)
    optimizer = optax.adam(1e-2)
    state, static = initial_state(operator_model, optimizer, jax.random.key(0))
    step, losses = make_train_step(optimizer, static, RelativeError()), []
    before = jax.tree.map(np.array, state.weights)
    for _ in range(2):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[1] < losses[0]
    # Two operators of the model, one of each of two levels.
    assert metrics["field_evaluations"] == 4
    changed = jax.tree.map(lambda x, y: not np.array_equal(x, y), before, state.weights)
    assert all(jax.tree.leaves(changed.inputs.levels[1].control))


def test_it_is_evaluated_on_other_grids_and_schemes(operator_model):
    assert outputs_of(operator_model, np.ones(12)).shape == (12,)
    other = operator_model.with_solver(ide.Strang()).on(ide.Mesh(intervals=4))
    assert [type(part.solver) for part in other.equations] == [ide.Strang] * 3
    assert [part.control.num_intervals for part in other.equations] == [4] * 3


@pytest.mark.parametrize("channels", [None, 2])
def test_outputs_in_the_plane_have_the_shape_of_the_inputs(channels):
    model = ide.OperatorModel(
        (8, 8), WIDTH, control=control(0), modes=2, channels=channels, key=KEY, **PARTS
    )
    levels = tuple(
        ide.StateModel(model.domain, WIDTH, control=control(n), **PARTS) for n in range(2)
    )
    whole = ide.UShapedModel(model, levels)
    inputs = jnp.ones((3, 8, 8) if channels is None else (3, 8, 8, channels))
    assert jax.eval_shape(whole, inputs).shape == inputs.shape
    at_points = ide.Field(inputs.reshape(3, 64, *inputs.shape[3:]), model.domain)
    assert jax.eval_shape(whole, at_points).shape == at_points.values.shape


def test_what_is_no_such_model(operator_model):
    model = operator_model.with_inputs(operator_model.inputs.inputs)
    levels = operator_model.inputs.levels
    with pytest.raises(ide.InputError, match="1 levels; give two for one coarser grid"):
        ide.UShapedModel(model, levels[:1])
    wide = ide.StateModel(model.domain, 5, control=control(0), **PARTS)
    with pytest.raises(ide.InputError, match="GridInputs acts on 5 features"):
        ide.UShapedModel(model, (wide, wide))(np.ones(8))
    with pytest.raises(ide.InputError, match="factor=2 does not divide a grid of 9 tokens"):
        operator_model(np.ones(9))
    with pytest.raises(ide.InputError, match="on a grid"):
        ide.coarsened(ide.TokenDomain.gauss_legendre(4))
    with pytest.raises(ide.InputError, match=r"states of shape .* on a grid of 8 tokens"):
        levels[0](np.ones((7, WIDTH)))
