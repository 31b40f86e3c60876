"""Samples with points of their own, and with a time of their own: the equation is solved so
much longer."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.models import outputs_at
from ide_transformer.tasks import Batch, RelativeError
from tests.helpers import built, largest, observed_order
from tests.models import examples as small
from tests.models.examples import HEADS, NORM, WIDTH, outputs_of


SAMPLES, TOKENS = 3, 8
RANDOM = np.random.default_rng(0)
POINTS = RANDOM.random((SAMPLES, TOKENS, 2))
VALUES = RANDOM.normal(size=(SAMPLES, TOKENS))
LENGTHS = np.array([TOKENS, 5, 5])
MASK = np.arange(TOKENS) < LENGTHS[:, None]
FIELD = ide.Field.at(VALUES, POINTS, MASK)
OPERATORS = (
    lambda key: small.attention(key, positions=ide.equation.LinearBias(HEADS)),
    lambda key: ide.contrib.SliceAttention(WIDTH, HEADS, 3, key=key, normalization=NORM),
)
MODEL = small.operator_model((4, 4), operators=OPERATORS, grid="midpoint", modes=1)


def test_a_sample_is_solved_as_if_it_were_alone():
    """Whatever the others are, in any order, and whatever stands in its padding."""
    outputs = np.asarray(outputs_of(MODEL, FIELD))
    length = LENGTHS[1]
    order = RANDOM.permutation(length)
    alone = ide.Field.at(VALUES[1, :length][order], POINTS[1, :length][order])
    assert largest(outputs[1, :length][order], outputs_of(MODEL, alone)) < 1e-12
    wild = FIELD._replace(values=np.where(MASK, FIELD.values, 1e3))
    places = np.where(MASK[..., None], FIELD.domain.points, 0.99)
    wild = eqx.tree_at(lambda f: f.domain.points, wild, places)
    reversed_samples = jax.tree.map(lambda x: x[::-1], wild)
    again = np.asarray(outputs_of(MODEL, reversed_samples))[::-1]
    assert largest(again[MASK], outputs[MASK]) < 1e-12


@eqx.filter_jit
def learned(model, values, domain):
    def loss(arguments):
        model, values, domain = arguments
        target = ide.Field(values**2 + 1, domain)
        return RelativeError()(model, Batch(ide.Field(values, domain), target)).loss

    return eqx.filter_value_and_grad(loss)((model, values, domain))


def test_the_gradient_is_the_slope():
    arrays, rest = eqx.partition((MODEL, FIELD.values, FIELD.domain), eqx.is_inexact_array_like)
    arrays = jax.tree.map(jnp.asarray, arrays)
    direction = jax.tree.map(lambda x: jnp.asarray(RANDOM.normal(size=x.shape)), arrays)
    # Weights stay zero at padding, and positive elsewhere.
    *first_directions, domain = direction
    rates = domain.weights * arrays[2].weights
    direction = (*first_directions, eqx.tree_at(lambda d: d.weights, domain, rates))

    def moved(h):
        arrays_there = jax.tree.map(lambda x, y: x + h * y, arrays, direction)
        return learned(*eqx.combine(arrays_there, rest))

    products = jax.tree.map(jnp.vdot, moved(0.0)[1], direction)
    slope, h = float(sum(jax.tree.leaves(products))), 1e-5
    assert abs((moved(h)[0] - moved(-h)[0]) / (2 * h) - slope) < 1e-6 * max(1, abs(slope))


def test_outputs_at_other_points():
    at_nodes = eqx.filter_jit(lambda x: outputs_at(MODEL, FIELD, POINTS[:, :5], x))
    assert largest(at_nodes(VALUES[:, :5]), outputs_of(MODEL, FIELD)[:, :5]) < 1e-12


def test_an_equation_has_the_points_of_one_sample():
    with pytest.raises(ide.InputError, match=r"jax\.vmap"):
        ide.Equation(MODEL.control, ide.Free(), FIELD.domain)
    with pytest.raises(ide.InputError, match=r"\(2, 8, 2\)"):
        MODEL(ide.Field(VALUES, ide.TokenDomain(FIELD.domain.points[:2])))


# Functions on a circle, as states of two features.
U = np.random.default_rng(0).normal(size=(3, 12, 2))


class Equal(small.StateInputs):
    features, domain = 2, ide.TokenDomain.periodic(12)


def model(solver, steps=1, *operators):
    operators = operators or (ide.equation.Diffusion(jnp.asarray(3e-4)),)
    parts = Equal(), ide.Tied(operators, 2), ide.Free(), ide.models.States()
    return ide.Model(*parts, solver=solver, mesh=ide.Mesh(steps=steps))


@pytest.mark.parametrize(("solver", "order"), [(diffrax.Euler(), 1), (ide.RK4(), 4)])
def test_a_longer_time_is_a_composition_to_the_order_of_the_scheme(solver, order):

    def error_of(steps):
        solved = eqx.filter_jit(model(solver, steps))
        once, half = (solved(ide.Timed(U, jnp.asarray(time))) for time in (1.0, 0.5))
        return largest(once, solved(ide.Timed(half, jnp.asarray(0.5))))

    assert abs(observed_order(error_of, (8, 16)) - order) < 0.15


def test_an_exact_flow_over_a_time_for_each_sample_is_exact():
    flow = eqx.filter_jit(model(ide.ExactFlow()))
    once = flow(U)
    end = flow(ide.Timed(U, np.array([0.0, 0.5, 1.0])))
    np.testing.assert_allclose(end, np.stack([U[0], once[1], flow(once)[2]]), atol=1e-12)


def test_gradients_of_times_are_slopes():
    parts = built(
        lambda: (ide.FeedForward(2, 4, key=small.KEY), ide.Attention(2, 1, key=small.KEY)), 0.7
    )
    heun = model(diffrax.Heun(), 1, *parts)
    durations = np.array([0.5, 1.0, 2.0])

    @jax.jit
    @jax.value_and_grad
    def value(durations):
        return jnp.sum(heun(ide.Timed(U, durations)) ** 3)

    step = 1e-5 * np.array([1.0, -2.0, 0.5])
    slope = (value(durations + step)[0] - value(durations - step)[0]) / 2
    np.testing.assert_allclose(value(durations)[1] @ step, slope, rtol=1e-6)

    # The field of each sample, as running costs see it.
    @eqx.filter_jit
    def rate(inputs):
        equation, u0 = heun.initial_value_problem(inputs)
        return equation.vector_field(0.0, u0)

    expected = durations[:, None, None] / 0.5 * rate(U)
    np.testing.assert_allclose(rate(ide.Timed(U, durations)), expected, rtol=1e-12)
