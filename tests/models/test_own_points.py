"""Functions of which each sample has points of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.models import outputs_at
from ide_transformer.tasks import Batch, RelativeError
from tests.helpers import largest
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


def test_equal_points_given_for_each_sample_or_for_all_are_one_problem():
    shared = ide.TokenDomain.from_points(POINTS[0], ((0.0, 1.0),) * 2)
    by_sample = ide.TokenDomain.from_points(np.stack([POINTS[0]] * SAMPLES), ((0.0, 1.0),) * 2)
    values = jnp.asarray(VALUES)
    (loss, of_shared), (other_loss, of_own) = (
        learned(MODEL, values, x) for x in (shared, by_sample)
    )
    assert abs(loss - other_loss) < 1e-13
    for x, y in zip(*map(jax.tree.leaves, (of_shared[:2], of_own[:2])), strict=True):
        assert largest(x, y) < 1e-12
    # What samples have by themselves is summed where they share it.
    assert largest(of_own[2].points.sum(0), of_shared[2].points) < 1e-12


def test_the_gradient_is_the_slope():
    """Along a random change of the weights, the values, the points and their weights."""
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

    slope = sum(
        float(jnp.vdot(x, y))
        for x, y in zip(*map(jax.tree.leaves, (moved(0.0)[1], direction)), strict=True)
    )
    h = 1e-5
    assert abs((moved(h)[0] - moved(-h)[0]) / (2 * h) - slope) < 1e-6 * max(1, abs(slope))


def test_outputs_at_other_points():
    """At points of the field they are its outputs."""
    at_nodes = eqx.filter_jit(lambda x: outputs_at(MODEL, FIELD, POINTS[:, :5], x))
    assert largest(at_nodes(VALUES[:, :5]), outputs_of(MODEL, FIELD)[:, :5]) < 1e-12


def test_an_equation_has_the_points_of_one_sample():
    with pytest.raises(ide.InputError, match=r"jax\.vmap"):
        ide.Equation(MODEL.control, ide.Free(), FIELD.domain)
    with pytest.raises(ide.InputError, match=r"\(2, 8, 2\)"):
        MODEL(ide.Field(VALUES, ide.TokenDomain(FIELD.domain.points[:2])))
