"""Whether a model is causal is tried: on every operator, under every scheme, and on leaks."""

import dataclasses

import diffrax
import jax
import jax.numpy as jnp
import pytest
from helpers import fast_first
from models.examples import TOKENS, WIDTH, attention, causal, feed_forward, language_model

import ide_transformer as ide
from ide_transformer.equation import AbstractOperator
from ide_transformer.models import check_causal


def model_of(*operators, **options):
    """A language model of these operators, each as it is or as it is made of a key."""
    made = [(lambda key, x=x: x) if isinstance(x, AbstractOperator) else x for x in operators]
    # A norm of each token would hide what changes its size alone.
    own = dict(output_normalization=ide.Free())
    return language_model(made, control=ide.Tied, own=own, **options)


class Ahead(AbstractOperator):
    """The next token, by a rate that is zero at first."""

    rate: jax.Array

    def __init__(self):
        self.rate = jnp.zeros(WIDTH)

    def __call__(self, u, domain):
        rate = jnp.broadcast_to(self.rate, u.shape)
        return rate * (jnp.roll(u, -1, axis=-2) - u)


class ByWeights(AbstractOperator):
    """Sees how many of the later tokens are padding."""

    def __call__(self, u, domain):
        if domain.weights is None:
            return -u
        return -u * jnp.sum(domain.weights, -1)[..., None, None]


class SaysThatItIsPointwise(AbstractOperator):
    pointwise = True

    def __call__(self, u, domain):
        return jnp.cumsum(u, axis=-2)


class Centred(ide.AbstractConstraint):
    """States whose mean over all tokens is zero."""

    def project(self, u):
        return u - jnp.mean(u, axis=-2, keepdims=True)

    def tangent(self, u, du):
        return self.project(du)

    def residual(self, u):
        return jnp.linalg.norm(u - self.project(u), axis=-1)


class Mixing(diffrax.Euler):
    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        y1, *rest = super().step(terms, t0, t1, y0, args, solver_state, made_jump)
        return y1 + jnp.roll(y1, 1, axis=-2), *rest


class Backwards(ide.TokenLogits):
    def __call__(self, u, inputs):
        return super().__call__(u, inputs)[..., ::-1, :]


class Sorted(ide.TextInputs):
    def embed(self, inputs, *, key=None):
        embedded = super().embed(inputs, key=key)
        return embedded._replace(u0=jnp.sort(embedded.u0, axis=-2))


def sorted_inputs():
    model = model_of(causal())
    fields = {x.name: getattr(model.inputs, x.name) for x in dataclasses.fields(model.inputs)}
    return model.with_inputs(Sorted(**fields))


ADAPTIVE = dict(
    solver=diffrax.Tsit5(),
    stepsize_controller=diffrax.PIDController(0.1, 0.1),
    steps_for="sample",
)
LEAKS = {
    "operator 1, Ahead, sees": lambda: model_of(causal(), Ahead()),
    r"operator 0, Attention, sees later .*\(…, causal=True\)": lambda: model_of(attention),
    "operator 0, ByWeights, sees": lambda: model_of(ByWeights()),
    "operator 0, SaysThatItIsPointwise, says": lambda: model_of(SaysThatItIsPointwise()),
    "the constraint Centred sees": lambda: model_of(causal(), constraint=Centred()),
    r"the exit .* give stops='token'": lambda: model_of(
        causal(), exit=ide.EstimatedExit(0.1, stops="sample")
    ),
    "the scheme Mixing lets": lambda: model_of(feed_forward, solver=Mixing()),
    "the read-out sees": lambda: model_of(feed_forward).with_read_out(Backwards()),
    "the embedding sees": sorted_inputs,
    # Adaptive steps hide none.
    r"Ahead, sees (?#adaptive)": lambda: model_of(Ahead(), **ADAPTIVE),
}


@pytest.mark.parametrize("named", LEAKS)
def test_a_leak_is_found_and_named(named):
    with pytest.raises(ide.InputError, match=f"text: .*{named}"):
        check_causal("text", LEAKS[named]())


def test_no_text_is_written_with_a_leak():
    with pytest.raises(ide.InputError, match=r"generate: .*Ahead, sees later"):
        ide.generate(model_of(Ahead()), TOKENS, 1, temperature=0.0)


NO_LEAKS = dict(solver=ide.ImplicitMidpoint()), ADAPTIVE, dict(constraint=ide.Sphere())


@pytest.mark.parametrize("options", fast_first(1, NO_LEAKS))
def test_no_alarm(options):
    check_causal("text", model_of(causal(), feed_forward, **options))
