"""Texts drawn with a cache are those drawn without, also beyond the context."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.decoding import (
    CONTEXT,
    TOKENS,
    VOCABULARY,
    WIDTH,
    Neighbours,
    attention,
    feed_forward,
    language_model,
    with_options,
)

import ide_transformer as ide
from ide_transformer.models import check_causal
from ide_transformer.models.generate import Draw, write


def without_cache(model, prompt, ends, length, draw):
    return write(model, prompt, ends, length, draw, jax.random.key(4), cached_tokens=0)


# Far beyond the context, from beyond it; to its end, one further, from its end.
@pytest.mark.parametrize(
    "prompt, length",
    [
        *((3, 12), (12, 3)),
        *(pytest.param(*case, marks=pytest.mark.heavy) for case in ((3, 7), (3, 8), (10, 3))),
    ],
)
def test_texts_are_those_without_a_cache_also_beyond_the_context(prompt, length):
    model, options = language_model(intervals=1), Draw(1.0, top_k=5)
    tokens = jnp.concatenate([TOKENS, TOKENS], axis=-1)[:, :prompt]
    text = ide.generate(model, tokens, length, key=jax.random.key(4), top_k=5)
    assert text.shape == (2, prompt + length)
    assert (text == without_cache(model, tokens, prompt, length, options)).all()


@pytest.mark.heavy
def test_prompts_of_different_lengths():
    """With learned and with rotary positions, also beyond the context."""
    operators = (with_options(positions=ide.Rotary(), window=5), feed_forward)
    model = language_model(operators=operators, intervals=1)
    lengths, length = jnp.array([[1, 4], [4, 1]]), 8
    tokens = jax.random.randint(jax.random.key(5), (2, 2, 4), 0, VOCABULARY)
    mask = jnp.broadcast_to(jnp.arange(4), tokens.shape) < lengths[..., None]
    options = dict(key=jax.random.key(0), temperature=0.0)
    text = ide.generate(model, ide.Text(tokens, mask), length, **options)
    for at in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        n = int(lengths[at])
        alone = ide.generate(model, tokens[at][:n], length, **options)
        assert (text.tokens[at][: n + length] == alone).all()
        assert not text.tokens[at][n + length :].any()
        assert (text.mask[at] == (jnp.arange(4 + length) < n + length)).all()
    expected = without_cache(model, tokens, lengths, length, Draw(0.0))
    assert (text.tokens == expected).all()


def test_a_text_is_one_compiled_program(key):
    traced = []

    class Counting(ide.FeedForward):
        def __call__(self, u, domain):
            traced.append(u.shape)
            return super().__call__(u, domain)

    model = language_model(
        operators=(attention, lambda key: Counting(WIDTH, key=key)), intervals=1
    )
    check_causal("test", model)
    traced.clear()
    ide.generate(model, TOKENS[:, :2], 3, key=key)
    first = len(traced)
    assert first > 0
    ide.generate(model, TOKENS[:, 2:4], 3, key=key)
    assert len(traced) == first
    ide.generate(model, TOKENS[:, :2], 4, key=key)
    assert len(traced) == 2 * first
    assert max(shape[-2] for shape in traced) == 2


def test_a_model_that_couples_tokens_is_written_without_a_cache():
    model = language_model(operators=(lambda key: Neighbours(jnp.ones(())), feed_forward))
    text = ide.generate(model, TOKENS[0, :4], 2, key=jax.random.key(0), temperature=0.0)
    for position in (4, 5):
        logits = np.asarray(eqx.filter_jit(model)(text[:position]))
        assert text[position] == np.argmax(logits[-1])


def test_tokens_do_not_wrap_around_in_the_dtype_of_the_prompt():
    small = language_model(intervals=1)
    model = ide.LanguageModel(
        300,
        CONTEXT,
        WIDTH,
        control=small.control,
        constraint=ide.Free(),
        discretization=small.discretization,
        readout_bias=True,
        key=jax.random.key(0),
    )
    bias = jnp.zeros(300).at[290].set(100.0)
    model = eqx.tree_at(lambda m: m.read_out.bias, model, bias)
    for dtype in (np.uint8, np.int8):
        text = ide.generate(model, np.array([1, 2, 3], dtype), 2, temperature=0.0)
        assert text.tolist() == [1, 2, 3, 290, 290]


@pytest.mark.heavy
def test_a_model_that_cannot_be_solved_writes_nothing():
    model, prompt = language_model(intervals=1), TOKENS[:, :3]
    embedding = model.inputs.embedding.at[5].set(jnp.nan)
    nan = eqx.tree_at(lambda m: m.inputs.embedding, model, embedding)
    with pytest.raises(ide.InputError, match="position 3 could not be written"):
        ide.generate(nan, prompt, 4, key=jax.random.key(0))
    with pytest.raises(ide.InputError, match="position 10 could not be written"):
        ide.generate(nan, TOKENS, 2, temperature=0.0)
    # The state at which a solve stops is finite.
    controller = diffrax.PIDController(rtol=1e-9, atol=1e-9)
    failing = model.with_solver(diffrax.Heun(), stepsize_controller=controller, max_steps=2)
    with pytest.raises(ide.InputError, match="position 3 could not be written"):
        ide.generate(failing, prompt, 1, temperature=0.0)
    traced = eqx.filter_jit(lambda model: ide.generate(model, prompt, 1, temperature=0.0))
    assert (traced(nan)[:, 3] == -1).all()
    # A token that is excluded is no failure.
    bias = jnp.zeros(VOCABULARY).at[5].set(-jnp.inf)
    without = eqx.tree_at(lambda m: m.read_out.bias, model, bias, is_leaf=lambda x: x is None)
    text = ide.generate(without, prompt, 4, key=jax.random.key(0))
    assert (text[:, 3:] != 5).all()


def test_at_low_temperatures_the_most_likely_token_is_drawn(key):
    logits = jax.random.normal(key, (50, VOCABULARY), jnp.float32)
    for options in ({}, dict(top_p=0.5), dict(top_k=3)):
        drawn = Draw(1e-39, **options)(logits, key)
        assert (drawn == jnp.argmax(logits, axis=-1)).all()


def test_models_that_see_tokens_still_to_be_written_are_refused(unchecked):
    bidirectional = language_model(operators=(with_options(causal=False), feed_forward))
    spreading = language_model(operators=(attention, lambda key: ide.Diffusion(0.1)))
    stopping = language_model().with_exit(ide.EstimatedExit(0.5, stops="sample"))
    for model, message in (
        (bidirectional, r"Attention, sees later .*Attention\(…, causal=True\)"),
        (spreading, "operator 1, Diffusion, sees later tokens"),
        (stopping, "EstimatedExit.* sees later tokens; give stops='token'"),
    ):
        with pytest.raises(ide.InputError, match=message):
            ide.generate(model, TOKENS[0, :4], 2, temperature=0.0)


def test_inputs_that_do_not_fit(unchecked):
    model = language_model()
    before = ide.Text(TOKENS, jnp.stack([jnp.arange(CONTEXT) > i for i in (1, -1)]))
    with pytest.raises(ide.InputError, match="padding stands behind"):
        ide.generate(model, before, 2, key=jax.random.key(0))
    traced = eqx.filter_jit(lambda text: ide.generate(model, text, 2, temperature=0.0))(before)
    assert (traced.tokens[0] == -1).all() and (traced.tokens[1] >= 0).all()
