import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest

import ide_transformer as ide


WIDTH, CONTEXT = 8, 6
TOKENS = np.random.default_rng(0).integers(0, 5, (3, CONTEXT))


def classifier(**options):
    def block(key):
        first, second = jax.random.split(key)
        return (
            ide.Attention(WIDTH, 2, key=first, std=0.5, normalization=ide.LayerNorm()),
            ide.FeedForward(WIDTH, key=second, std=0.5, normalization=ide.LayerNorm()),
        )

    return ide.SequenceClassifier(
        5,
        CONTEXT,
        4,
        WIDTH,
        control=ide.PiecewiseConstant.build(block, 2, key=jax.random.key(1)),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        key=jax.random.key(2),
        std=0.5,
        **options,
    )


def test_the_mean_over_tokens_is_read():
    model = classifier()
    logits = eqx.filter_jit(model)(TOKENS)
    u0 = np.asarray(model.inputs.embedding)[TOKENS] + np.asarray(model.inputs.positions)
    u1 = ide.solve(model.equation, jnp.asarray(u0), solver=ide.LieTrotter()).u1
    u1 = np.asarray(u1)
    v = (u1 - u1.mean(-1, keepdims=True)) / np.sqrt(u1.var(-1, keepdims=True) + 1e-5)
    read = model.read_out.classifier
    assert logits.shape == (3, 4)
    assert (
        largest(logits, v.mean(axis=-2) @ np.asarray(read.weight) + np.asarray(read.bias))
        < 1e-9
    )
    assert largest(model(TOKENS[1, :4]), logits[1]) > 1e-3


def test_a_class_token_does_not_see_padding():
    model, prefix = classifier(class_token=True), (jnp.ones(WIDTH),)
    model = eqx.tree_at(lambda m: m.inputs.prefix, model, prefix)
    mask = np.arange(CONTEXT) < np.array([[6], [4], [1]])
    logits = eqx.filter_jit(model)(ide.Text(TOKENS, mask))
    assert largest(logits[1], model(TOKENS[1, :4])) < 1e-12
    assert largest(logits[0], model(TOKENS[0])) < 1e-12
    assert largest(model(TOKENS)[1], logits[1]) > 1e-3
    assert model.domain.num_tokens == CONTEXT + 1


def test_texts_that_do_not_fit():
    with pytest.raises(ide.InputError, match="build the model with class_token=True"):
        classifier()(ide.Text(TOKENS, TOKENS >= 0))
    with pytest.raises(ide.InputError, match="a token 5, but the model knows 0 to 4"):
        classifier()(TOKENS + 1)
    # What a compiled program is given cannot be refused.
    finite = np.isfinite(eqx.filter_jit(classifier())(jnp.asarray(TOKENS + 1))).all(axis=-1)
    np.testing.assert_array_equal(finite, (TOKENS < 4).all(axis=-1))
    negative = eqx.filter_jit(classifier())(jnp.asarray(TOKENS - 1))
    np.testing.assert_array_equal(np.isfinite(negative).all(-1), (TOKENS > 0).all(axis=-1))
