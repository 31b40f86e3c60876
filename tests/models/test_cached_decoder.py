"""Decoders with a cache and models compiled for a few lengths give the outputs of the model;
models that they refuse; texts that models write, drawn and greedy."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.models.generate import Draw
from tests.conformance.models import logits_one_by_one
from tests.helpers import drawn, fast_first, largest, programs_compiled
from tests.models import examples as small
from tests.models.examples import CONTEXT, TOKENS, outputs_of


PROMPT = TOKENS[0, :3]


def sourced(key):
    bias = ide.equation.RelativeBias(drawn((8, small.HEADS), seed=3), max_distance=6)
    return ide.SourcedAttention(small.attention(key, causal=True, positions=bias), key=key)


# Each of them goes another way through the march.
EULER = ide.LieTrotter(ide.Projected(diffrax.Euler()))
OF_TOKENS = dict(control=ide.Chebyshev, operators=(small.causal(),))
SOLVERS = {
    "heun": dict(solver=diffrax.Heun(), steps=2, **OF_TOKENS),
    "post-norm": dict(solver=EULER, constraint=ide.LayerNorm()),
    "adams-bashforth": dict(solver=ide.AdamsBashforth(3), steps=2, operators=(sourced,)),
}


@pytest.mark.parametrize("name", fast_first(1, SOLVERS))
def test_schemes(name):
    model = small.language_model(**SOLVERS[name])
    assert ide.models.why_not_cached(model) is None
    expected = np.asarray(outputs_of(model, TOKENS))
    logits = logits_one_by_one(model, TOKENS, 4)
    assert largest(expected[..., 3:, :], logits) < 1e-12
    assert np.std(expected) > 0.1


class Neighbours(ide.AbstractOperator):
    """Couples tokens in a way of its own."""

    weight: jax.Array

    def __call__(self, u, domain):
        return self.weight * jnp.concatenate([0 * u[..., :1, :], u[..., :-1, :]], axis=-2)


class Failing(diffrax.Euler):
    """Euler, whose step in the first layer reports a failure where a token is far out."""

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        *outcome, fine = super().step(terms, t0, t1, y0, args, solver_state, made_jump)
        failed = (t0 < 1) & jnp.any(jnp.abs(y0) > 100)
        wrong = diffrax.RESULTS.nonlinear_divergence
        return *outcome, diffrax.RESULTS.where(failed, wrong, fine)


def test_a_failed_step_makes_the_logits_nan():
    model = small.language_model(solver=Failing(), text_options=dict(tied=False))
    tokens = TOKENS[0]
    first, far = np.argmax(tokens == tokens[5]), np.array(model.inputs.embedding)
    far[tokens[5]] *= 1e3
    far = eqx.tree_at(lambda m: m.inputs.embedding, model, jax.device_put(far))
    failed, fine = (np.asarray(logits_one_by_one(x, tokens, 1)) for x in (far, model))
    assert first > 0 and np.isfinite(fine).all()
    assert largest(failed[:first], fine[:first]) == 0
    # In the next layer the tokens that follow see it.
    assert np.isnan(failed[first:]).all()


def neighbours(key):
    return ide.equation.Scaled(Neighbours(jnp.ones(())), 0.5)


TIGHT = diffrax.PIDController(1e-3, 1e-3)
REFUSED = {
    "ImplicitEuler": dict(solver=ide.ImplicitEuler()),
    "adaptive": dict(solver=diffrax.Tsit5(), stepsize_controller=TIGHT),
    "ReversibleHeun": dict(solver=diffrax.ReversibleHeun(), control=ide.PiecewiseLinear),
    "Attention .*causal=True": dict(operators=(small.attention,)),
    "Neighbours.*pointwise": dict(operators=(small.causal(), neighbours)),
    "VelocityInputs": dict(solver=ide.contrib.Nesterov(), velocity=True),
}


@pytest.mark.parametrize("message", REFUSED)
def test_models_that_cannot_be_decoded_token_by_token(message, unchecked):
    model = small.language_model(**REFUSED[message])
    with pytest.raises(ide.InputError, match=message):
        ide.models.CachedDecoder(model, CONTEXT)


def test_tokens_that_stop_are_not_decoded_token_by_token():
    stopping = small.language_model().with_exit(ide.EstimatedExit(0.5))
    with pytest.raises(ide.InputError, match="different depths"):
        ide.models.CachedDecoder(stopping, CONTEXT)


def test_what_is_not_in_the_text_has_no_logits():
    model = small.language_model((small.feed_forward,))
    with pytest.raises(ide.InputError, match=f"tokens={CONTEXT + 1}.*{CONTEXT}"):
        ide.models.CachedDecoder(model, CONTEXT + 1)
    decoder = ide.models.CachedDecoder(model, 6)
    extend, prefill = eqx.filter_jit(decoder.extend), eqx.filter_jit(decoder.prefill)
    _, cache = prefill(PROMPT, np.array(-1))
    extensions = (1, 6, 0), (1, -1, 0), (small.VOCABULARY, 3, 0), (1, 3, 1)
    cases = [(is_in_text, extend(*map(np.array, x), cache)[0]) for *x, is_in_text in extensions]
    last = (3, 0), (-4, 0), (-3, 1)
    cases += [(is_in_text, prefill(PROMPT, np.array(place))[0]) for place, is_in_text in last]
    for is_in_text, logits in cases:
        assert np.isfinite(logits).all() == is_in_text == np.isfinite(logits).any()


def test_ten_texts_of_ten_lengths_are_two_programs():
    model = small.sequence_classifier(class_token=True)
    compiled = ide.compiled(model, sizes=(5,))
    assert compiled.sizes == (5, CONTEXT) and compiled.why_not_padded is None
    with programs_compiled() as names:
        for length in range(1, CONTEXT + 1):
            compiled(TOKENS[:, :length])
    # The one for the first size has been compiled for the trial.
    assert names.count("jit(compiled_outputs)") <= 2
    text = ide.Text(TOKENS[:, :8], small.MASK[:, :8])
    assert largest(compiled(text), outputs_of(model, text)) < 1e-12


# Of one operator, which compiles in less time.
BLOCK = (small.causal(),)
SMALL = small.language_model(BLOCK, intervals=1)
OF_VELOCITY = dict(velocity=True, solver=contrib.Nesterov())
UNCACHED = small.language_model(BLOCK, intervals=1, **OF_VELOCITY)
# Prompts of integers in which the numbers of all tokens may not fit.
PROMPTS = TOKENS[:, :2].astype(np.int8)
UNEVEN = ide.Text(TOKENS[:, :4].astype(np.int8), np.arange(4) < np.array([[4], [3]]))
GREEDY = dict(temperature=0.0)


def most_likely(model, prompt, length):
    """By hand, from the outputs for the whole context. Tokens behind a text do not matter."""
    tokens = [*map(int, prompt)]
    for _ in range(length):
        window = tokens[-CONTEXT:]
        logits = outputs_of(model, np.array(window + [0] * (CONTEXT - len(window))))
        tokens.append(int(np.argmax(logits[len(window) - 1])))
    return tokens


def test_prompts_that_fit_into_the_context_are_one_program():
    with programs_compiled() as names:
        texts = [ide.generate(SMALL, TOKENS[:, :n], 2, **GREEDY) for n in (1, 8)]
    assert names.count("jit(_fill_buffers)") <= 1, names
    for text, n in zip(texts, (1, 8), strict=True):
        assert text[1].tolist() == most_likely(SMALL, TOKENS[1, :n], 2)


@pytest.mark.parametrize("model", fast_first(1, [SMALL, UNCACHED]))
def test_prompts_of_different_lengths_also_beyond_the_context(model, unchecked):
    assert (ide.models.why_not_cached(model) is None) == (model is SMALL)
    length = 8
    text = ide.generate(model, UNEVEN, length, **GREEDY)
    for i, n in enumerate((4, 3)):
        expected = [*most_likely(model, TOKENS[i, :n], length), *[0] * (4 - n)]
        assert text.tokens[i].tolist() == expected
        assert (text.mask[i] == (np.arange(4 + length) < n + length)).all()


def test_padding_stands_behind_a_prompt(unchecked):
    before = ide.Text(TOKENS, jax.device_put(np.arange(CONTEXT) > np.array([[1], [-1]])))
    with pytest.raises(ide.InputError, match="mask"):
        ide.generate(SMALL, before, 2, **GREEDY)
    with pytest.raises(ide.InputError, match=r"key=jax\.random"):
        ide.generate(SMALL, TOKENS, 2)


def test_tokens_are_drawn_with_the_probabilities_of_the_model(key):
    logits = np.asarray(outputs_of(SMALL, np.zeros(CONTEXT, int)))[0]
    many, random = np.tile(logits, (4000, 1)), np.random.default_rng(0).normal(size=(50, 11))

    @eqx.filter_jit
    def drawn(logits, *draws):
        return [draw(logits, key) for draw in draws]

    def frequencies(tokens):
        return np.bincount(tokens, minlength=small.VOCABULARY) / len(tokens)

    probabilities = np.exp(logits) / np.exp(logits).sum()
    samples = ide.generate(SMALL, np.zeros((4000, 1), int), 1, key=key)[:, 1]
    assert np.abs(frequencies(samples) - probabilities).max() < 0.04
    top, nucleus, cold = map(np.asarray, drawn(many, Draw(top_k=3), Draw(top_p=0.6), Draw(0.5)))
    order = np.argsort(-logits)
    assert {*top} == {*order[:3]}
    # As few of the most likely tokens as have the probability together.
    before = np.cumsum(probabilities[order]) - probabilities[order]
    assert {*nucleus} == {*order[before < 0.6]}
    squared = probabilities**2 / (probabilities**2).sum()
    assert np.abs(frequencies(cold) - squared).max() < 0.04
    # A token that is excluded is no failure, and the least temperature no division by zero.
    random[:, 5] = -np.inf
    (coldest,) = drawn(random.astype(np.float32), Draw(1e-39, top_k=3))
    assert (coldest == random.argmax(axis=-1)).all()


def without_token(model):
    embedding = np.array(model.inputs.embedding)
    embedding[5] = np.nan
    return eqx.tree_at(lambda m: m.inputs.embedding, model, jax.device_put(embedding))


@pytest.mark.parametrize("model", [SMALL, UNCACHED])
def test_a_model_that_cannot_be_solved_writes_nothing(model):
    with pytest.raises(ide.InputError, match="position 3"):
        ide.generate(without_token(model), UNEVEN, 8, **GREEDY)


@pytest.mark.parametrize("model", [SMALL, UNCACHED])
def test_nothing_is_drawn_behind_the_end_of_a_text(model):
    free = np.asarray(ide.generate(model, PROMPTS, 6, **GREEDY))
    end = int(free[0, 4])
    expected = free.copy()
    for row in expected:
        places = np.flatnonzero(row[2:] == end)
        row[2 + places[0] if len(places) else len(row) :] = end
    assert np.array_equal(ide.generate(model, PROMPTS, 6, end=end, **GREEDY), expected)
