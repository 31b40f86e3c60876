"""Changes of low rank: their values and gradients against whole matrices."""

import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.equation import (
    LowRank,
    map_parts,
    merge_low_rank,
    partition_weights,
    parts,
    with_low_rank,
)
from tests.helpers import built_control, drawn, largest, make_block
from tests.layered_models import model_of


RANK, ALPHA, TARGETS = 3, 6.0, ("query", "value", "outer")
TOKENS = np.arange(6)[None] % 5


@eqx.filter_jit
def unchanged(model):
    return with_low_rank(model, RANK, ALPHA, TARGETS, key=jax.random.key(3))


def changed(model):
    def with_up(part, place):
        return eqx.tree_at(lambda x: x.up, part, drawn(part.up.shape, place, 0.2))

    return map_parts(unchanged(model), LowRank, with_up)


@eqx.filter_jit
def outputs(model):
    return model(TOKENS)


def test_the_first_outputs_are_those_of_the_model_and_targets_are_named():
    model = model_of("attention")
    assert np.array_equal(outputs(unchanged(model)), outputs(model))
    with pytest.raises(ide.InputError, match=r"'q_proj'.*inner"):
        with_low_rank(model, targets=["q_proj"], key=jax.random.key(0))
    with pytest.raises(ide.InputError, match="low-rank"):
        unchanged(unchanged(model))


def test_terms_of_an_expansion_are_not_merged():
    control = built_control(make_block, 4, ide.Chebyshev)
    model = changed(eqx.tree_at(lambda x: x.control, model_of("attention"), control))
    with pytest.raises(ide.InputError, match="Chebyshev"):
        merge_low_rank(model)


def test_gradients_are_those_of_the_matrices():
    """`∂A = (α/r) ∂W Bᵀ` and `∂B = (α/r) Aᵀ ∂W`, for each layer; nothing else has one."""
    model = changed(model_of("attention"))
    factors, frozen = partition_weights(eqx.filter(model, eqx.is_inexact_array))
    rest = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    @jax.jit
    @jax.grad
    def of_factors(factors, frozen):
        return (eqx.combine(factors, frozen, rest)(TOKENS) ** 2).mean()

    @eqx.filter_jit
    @eqx.filter_grad
    def of_matrices(merged):
        return (merged(TOKENS) ** 2).mean()

    slopes = parts(of_factors(factors, frozen), LowRank)
    matrix_slopes = of_matrices(merge_low_rank(model))
    attention, feed_forward = matrix_slopes.control.blocks
    expected = attention.query, attention.value, feed_forward.outer
    for part, gradient, matrix in zip(parts(model, LowRank), slopes, expected, strict=True):
        assert gradient.linear.weight is None
        transposed = part.down.swapaxes(-1, -2), part.up.swapaxes(-1, -2)
        factor = ALPHA / RANK
        assert largest(gradient.up, factor * transposed[0] @ matrix.weight) < 1e-12
        assert largest(gradient.down, factor * matrix.weight @ transposed[1]) < 1e-12
