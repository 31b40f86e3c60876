"""Decoders with a cache and models compiled for a few lengths give the outputs of the model;
models that they refuse."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
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
