"""Small language models, their logits one token after the other, and outputs of any model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helpers import largest

import ide_transformer as ide


WIDTH, HEADS, VOCABULARY, CONTEXT = 16, 4, 11, 10
TOKENS = jnp.asarray(np.random.default_rng(5).integers(0, VOCABULARY, (2, CONTEXT)))
NORM = ide.LayerNorm(eps=1e-5)


def attention(key, **options):
    options = dict(causal=True, normalization=NORM, std=0.3) | options
    return ide.Attention(WIDTH, HEADS, key=key, **options)


def feed_forward(key):
    return ide.FeedForward(WIDTH, key=key, normalization=NORM, std=0.3)


def language_model(
    solver=ide.LieTrotter(),
    *,
    control=ide.PiecewiseConstant,
    operators=(attention, feed_forward),
    intervals=2,
    constraint=ide.Free(),
    learned_positions=True,
    **options,
):
    def block(key):
        keys = jax.random.split(key, len(operators))
        return tuple(make(key) for make, key in zip(operators, keys, strict=True))

    return ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        control=control.build(block, intervals, key=jax.random.key(1)),
        constraint=constraint,
        discretization=ide.Discretization(solver, **options),
        key=jax.random.key(2),
        learned_positions=learned_positions,
        std=1.0,
    )


class Neighbours(ide.AbstractOperator):
    """Couples tokens in a way of its own."""

    weight: jax.Array

    def __call__(self, u, domain):
        return self.weight * jnp.concatenate([0 * u[..., :1, :], u[..., :-1, :]], axis=-2)


@eqx.filter_jit
def outputs_of(model, inputs, key=None):
    return model(inputs, key=key)


@eqx.filter_jit
def logits_one_by_one(model, tokens, first):
    """Of all tokens from `first - 1` on: the prompt in one pass, the others one by one."""
    decoder = ide.CachedDecoder(model, tokens.shape[-1])
    logits, cache = decoder.prefill(tokens[..., :first])

    def read(cache, position):
        token = jax.lax.dynamic_index_in_dim(tokens, position, -1, keepdims=False)
        logits, cache = decoder.extend(token, position, cache)
        return cache, logits

    _, others = jax.lax.scan(read, cache, jnp.arange(first, tokens.shape[-1]))
    return jnp.moveaxis(jnp.concatenate([logits[None], others]), 0, -2)


def check_logits(model, tolerance=1e-12):
    assert ide.why_not_cached(model) is None
    expected = eqx.filter_jit(lambda model, tokens: model(tokens))(model, TOKENS)
    expected = np.asarray(expected)
    assert largest(expected[..., 3:, :], logits_one_by_one(model, TOKENS, 4)) < tolerance
    assert np.std(expected) > 0.1


def with_options(**options):
    return lambda key: attention(key, **options)
