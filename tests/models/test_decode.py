"""Generation with a cache: the logits and texts of the model itself, and what is refused."""

import re
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import largest

import ide_transformer as ide
from ide_transformer.integration import why_not_by_token
from ide_transformer.models.generate import Draw, write
from ide_transformer.solvers import AbstractSequentialSplitting


WIDTH, HEADS, VOCABULARY, CONTEXT = 16, 4, 11, 10
TOKENS = jax.random.randint(jax.random.key(3), (2, CONTEXT), 0, VOCABULARY)
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
    **scheme,
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
        discretization=ide.Discretization(solver, **scheme),
        key=jax.random.key(2),
        learned_positions=learned_positions,
        std=1.0,
    )


@eqx.filter_jit
def logits_one_by_one(model, tokens, first):
    """Of all tokens from `first - 1` on: the prompt in one pass, the others one by one."""
    decoder = ide.CachedDecoder(model, tokens.shape[-1])
    logits, memory = decoder.prefill(tokens[..., :first])

    def read(memory, position):
        token = jax.lax.dynamic_index_in_dim(tokens, position, -1, keepdims=False)
        logits, memory = decoder.extend(token, position, memory)
        return memory, logits

    _, others = jax.lax.scan(read, memory, jnp.arange(first, tokens.shape[-1]))
    return jnp.moveaxis(jnp.concatenate([logits[None], others]), 0, -2)


def check_logits(model, tolerance=1e-12):
    assert ide.why_not_cached(model) is None
    expected = model(TOKENS)
    assert largest(expected[..., 3:, :], logits_one_by_one(model, TOKENS, 4)) < tolerance
    assert float(jnp.std(expected)) > 0.1


FOUR = {
    "euler": diffrax.Euler(),
    "lie_trotter": ide.LieTrotter(),
    "strang(heun)": ide.Strang(diffrax.Heun()),
    "rk4": ide.RK4(),
}


@pytest.mark.parametrize("name", FOUR)
def test_logits_are_those_without_a_cache(name):
    model = language_model(FOUR[name])
    check_logits(model)
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model
    )
    check_logits(single, tolerance=1e-5)


SOLVERS = {
    "heun": dict(solver=diffrax.Heun()),
    "tsit5": dict(solver=diffrax.Tsit5(), control=ide.PiecewiseLinear),
    "half steps": dict(solver=diffrax.HalfSolver(diffrax.Euler())),
    "residual(rk4)": dict(solver=ide.Residual(ide.RK4())),
    "residual(gated rk2)": dict(solver=ide.Residual(ide.GatedRK2(WIDTH))),
    "nesterov": dict(solver=ide.Nesterov()),
    "leapfrog": dict(solver=ide.Leapfrog(), control=ide.PiecewiseLinear),
    "adams-bashforth": dict(
        solver=ide.AdamsBashforth(3), control=ide.PiecewiseLinear, intervals=4
    ),
    "adams-bashforth, 2 steps": dict(
        solver=ide.AdamsBashforth(), control=ide.PiecewiseLinear, steps_per_interval=2
    ),
    "rk4, chebyshev, 2 steps": dict(
        solver=ide.RK4(), control=ide.Chebyshev, steps_per_interval=2
    ),
    "etdab2": dict(
        solver=ide.ETDAB2(),
        control=ide.PiecewiseLinear,
        operators=(attention, feed_forward, lambda key: ide.Damping(0.3)),
        intervals=3,
    ),
    "post-norm": dict(
        solver=ide.LieTrotter(ide.Projected(diffrax.Euler())), constraint=ide.LayerNorm()
    ),
    "sphere": dict(solver=ide.Projected(ide.RK4()), constraint=ide.Sphere()),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_schemes(name):
    check_logits(language_model(**SOLVERS[name]))


class RunningMean(ide.AbstractTokenIntegral):
    """The mean over the past, one that remembers the states; with a program inside that is
    compiled by itself."""

    rate: jax.Array
    causal: ClassVar[bool] = True

    def over(self, u, domain, others):
        @jax.jit
        def mean(u):
            (state,), seen = others((u,), domain)
            past = domain.positions[:, None] >= seen.positions[None, :]
            past = past / past.sum(axis=-1, keepdims=True)
            return jnp.einsum("xz,...zy->...xy", past.astype(u.dtype), state)

        return self.rate * mean(jnp.tanh(u))


def with_options(**options):
    return lambda key: attention(key, **options)


OPERATORS = {
    "grouped queries, rotary": [with_options(key_value_heads=2, positions=ide.Rotary())],
    "window": [with_options(window=3, positions=ide.Rotary())],
    "relative bias": [
        lambda key: eqx.tree_at(
            lambda x: x.positions,
            attention(key),
            ide.RelativeBias(jax.random.normal(key, (8, HEADS)), max_distance=6),
        )
    ],
    "two attentions, scaled": [
        attention,
        lambda key: ide.Scaled(attention(key, key_value_heads=1), 0.5),
    ],
    "dropout": [lambda key: ide.Dropout(attention(key), 0.5)],
    "injected, relaxed": [
        lambda key: ide.SourcedAttention(attention(key), key=key, std=0.3),
        lambda key: ide.Relaxation(0.3),
    ],
    "of a user": [lambda key: RunningMean(jnp.ones(()))],
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name):
    operators = (*OPERATORS[name], feed_forward)
    learned = name not in ("grouped queries, rotary", "window", "relative bias")
    check_logits(language_model(ide.Strang(), operators=operators, learned_positions=learned))


@eqx.filter_jit
def without_cache(model, prompt, ends, length, options):
    return write(model, prompt, ends, length, jax.random.key(4), options, cached_tokens=0)


# To the end of the context, one further, far beyond, from its end, from beyond.
@pytest.mark.parametrize("prompt, length", [(3, 7), (3, 8), (3, 12), (10, 3), (12, 3)])
def test_texts_are_those_without_a_cache_also_beyond_the_context(prompt, length):
    model, options = language_model(), Draw(1.0, top_k=5)
    tokens = jnp.concatenate([TOKENS, TOKENS], axis=-1)[:, :prompt]
    text = ide.generate(model, tokens, length, key=jax.random.key(4), top_k=5)
    assert text.shape == (2, prompt + length)
    assert (text == without_cache(model, tokens, prompt, length, options)).all()


def test_prompts_of_different_lengths():
    """With learned and with rotary positions, also beyond the context."""
    operators = (with_options(positions=ide.Rotary(), window=5), feed_forward)
    model = language_model(operators=operators)
    lengths, length = jnp.array([[1, 4], [5, 4]]), 8
    tokens = jax.random.randint(jax.random.key(5), (2, 2, 5), 0, VOCABULARY)
    mask = jnp.broadcast_to(jnp.arange(5), tokens.shape) < lengths[..., None]
    options = dict(key=jax.random.key(0), temperature=0.0)
    text = ide.generate(model, ide.Text(tokens, mask), length, **options)
    for at in [(0, 0), (0, 1), (1, 0), (1, 1)]:
        n = int(lengths[at])
        alone = ide.generate(model, tokens[at][:n], length, **options)
        assert (text.tokens[at][: n + length] == alone).all()
        assert not text.tokens[at][n + length :].any()
        assert (text.mask[at] == (jnp.arange(5 + length) < n + length)).all()
    expected = without_cache(model, tokens, lengths, length, Draw(0.0))
    assert (text.tokens == expected).all()


def test_a_text_is_one_compiled_program(key):
    traced = []

    class Counting(ide.FeedForward):
        def __call__(self, u, domain):
            traced.append(u.shape)
            return super().__call__(u, domain)

    model = language_model(operators=(attention, lambda key: Counting(WIDTH, key=key)))
    traced.clear()
    ide.generate(model, TOKENS[:, :2], 3, key=key)
    first = len(traced)
    assert first > 0
    ide.generate(model, TOKENS[:, 2:4], 3, key=key)
    assert len(traced) == first
    ide.generate(model, TOKENS[:, :2], 8, key=key)
    assert len(traced) == 2 * first
    assert max(shape[-2] for shape in traced) == 2


class Counted(AbstractSequentialSplitting):
    """Lie–Trotter with its sub-steps in a loop."""

    sub_solver: diffrax.AbstractSolver = diffrax.Euler()
    splitting_order: ClassVar[int] = 1

    def sub_steps(self, num_operators):
        return []

    def flows(self, solve, number, y0):
        return jax.lax.fori_loop(0, 2, lambda _, y: solve(0, 0.0, 0.5, y), y0), None


class Neighbours(ide.AbstractOperator):
    weight: jax.Array

    def __call__(self, u, domain):
        return self.weight * jnp.concatenate([0 * u[..., :1, :], u[..., :-1, :]], axis=-2)


REFUSED = {
    "ImplicitEuler is implicit": dict(solver=ide.ImplicitEuler()),
    "Kvaerno5 in Strang is implicit": dict(solver=ide.Strang(diffrax.Kvaerno5())),
    "SteadyState is implicit": dict(solver=ide.SteadyState()),
    "adaptive steps depend on the whole text": dict(
        solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(1e-3, 1e-3)
    ),
    "ReversibleHeun evaluates the field before": dict(
        solver=diffrax.ReversibleHeun(), control=ide.PiecewiseLinear
    ),
    "Counted evaluates the field in a loop": dict(solver=Counted()),
    r"Attention\(…, causal=True\)": dict(operators=(with_options(causal=False),)),
    "Diffusion may couple tokens": dict(
        operators=(attention, lambda key: ide.Scaled(ide.Diffusion(0.1), 0.5))
    ),
    "Neighbours may couple tokens.*pointwise: ClassVar": dict(
        operators=(attention, lambda key: Neighbours(jnp.ones(())))
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_decoded_token_by_token(message, unchecked):
    model = language_model(**REFUSED[message])
    assert re.search(message, ide.why_not_cached(model))
    with pytest.raises(ide.InputError, match=message):
        ide.CachedDecoder(model, CONTEXT)


def test_what_is_refused_is_written_without_a_cache():
    model = language_model(operators=(lambda key: Neighbours(jnp.ones(())), feed_forward))
    text = ide.generate(model, TOKENS[0, :4], 2, key=jax.random.key(0), temperature=0.0)
    for position in (4, 5):
        assert text[position] == jnp.argmax(model(text[:position])[-1])


def test_inputs_that_do_not_fit(unchecked):
    model = language_model()
    for tokens in (0, CONTEXT + 1):
        with pytest.raises(ide.InputError, match=f"tokens={tokens}.*from 1 to {CONTEXT}"):
            ide.CachedDecoder(model, tokens)
    with pytest.raises(ide.InputError, match=r"3 tokens.*built for 1 to 2"):
        ide.CachedDecoder(model, 2).prefill(TOKENS[0, :3])
    before = ide.Text(TOKENS, jnp.stack([jnp.arange(CONTEXT) > i for i in (1, -1)]))
    with pytest.raises(ide.InputError, match="padding stands behind it"):
        ide.generate(model, before, 2, key=jax.random.key(0))
    with pytest.raises(ide.InputError, match="length=-1"):
        ide.generate(model, TOKENS, -1, key=jax.random.key(0))
    grid = ide.Equation(model.control, ide.Free(), ide.TokenDomain.uniform((2, 3)))
    state = jax.ShapeDtypeStruct((1, WIDTH), jnp.float64)
    assert "2 dimensions" in why_not_by_token(grid, model.discretization, state)
