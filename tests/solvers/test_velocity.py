"""A velocity that starts from an embedding of its own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide


VOCABULARY, TOKENS, WIDTH, LAYERS = 7, 5, 8, 3


def make_block(key):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm()
    attention = ide.Attention(
        WIDTH, heads=2, causal=True, normalization=norm, std=0.4, key=first
    )
    return attention, ide.FeedForward(WIDTH, normalization=norm, std=0.4, key=second)


def language_model(solver, **options):
    first, second = jax.random.split(jax.random.key(3))
    return ide.LanguageModel(
        VOCABULARY,
        TOKENS,
        WIDTH,
        control=ide.PiecewiseConstant.build(make_block, LAYERS, key=first),
        constraint=ide.Free(),
        discretization=ide.Discretization(solver),
        std=0.5,
        key=second,
        **options,
    )


COEFFICIENTS = np.random.default_rng(1).uniform(0.3, 0.9, size=(3, LAYERS, 2))
YURII = ide.Nesterov(*COEFFICIENTS, normalization=ide.LayerNorm())


def test_the_embedding_of_the_velocity_is_learned():
    model = language_model(YURII, own_velocity=True)

    def loss(velocity):
        own = eqx.tree_at(lambda m: m.inputs.velocity, model, velocity)
        return jnp.sum(jnp.sin(own(jnp.arange(5))))

    seen = np.abs(np.asarray(jax.jit(jax.grad(loss))(model.inputs.velocity))).max(-1)
    assert (seen[:5] > 1e-6).all() and (seen[5:] == 0).all()


def test_what_has_no_velocity_cannot_start_from_one():
    model = language_model(ide.LieTrotter(), own_velocity=True)
    with pytest.raises(
        ide.InputError, match="LieTrotter has no velocity that could start from it"
    ):
        model(jnp.arange(5))


def test_such_a_model_writes_without_a_cache():
    model = language_model(YURII, own_velocity=True)
    assert "embedding of its own" in str(ide.why_not_cached(model))
    with pytest.raises(ide.InputError, match="an embedding of its own"):
        ide.CachedDecoder(model, TOKENS)
    written = ide.generate(model, jnp.array([1, 2]), 3, key=jax.random.key(0))
    assert written.shape == (5,)
