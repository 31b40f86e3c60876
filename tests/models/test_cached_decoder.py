"""The logits of a decoder with a cache are those of the model; models that it refuses."""

import re
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest
from models.examples import (
    CAUSAL,
    CONTEXT,
    HEADS,
    TOKENS,
    VOCABULARY,
    WIDTH,
    Neighbours,
    attention,
    causal,
    feed_forward,
    filled,
    language_model,
    outputs_of,
)

import ide_transformer as ide
from ide_transformer.integration import why_not_by_token
from ide_transformer.solvers import AbstractSequentialSplitting
from ide_transformer.testing.models import logits_one_by_one


PROMPT = TOKENS[0, :3]


def check_logits(model, tolerance=1e-12):
    assert ide.why_not_cached(model) is None
    expected = np.asarray(outputs_of(model, TOKENS))
    found = logits_one_by_one(model, TOKENS, 4)
    assert largest(expected[..., 3:, :], found) < tolerance
    assert np.std(expected) > 0.1
    return found


@pytest.mark.heavy
def test_in_low_precision():
    model = filled(language_model)
    low = check_logits(model.with_options(compute_dtype="bfloat16"))
    assert 0.01 < largest(low, logits_one_by_one(model, TOKENS, 4)) < 1


# Each of them goes another way through the march.
SOLVERS = {
    "heun, 4 of 2 intervals": dict(
        solver=diffrax.Heun(), control=ide.Chebyshev, steps_per_interval=2
    ),
    "post-norm": dict(
        solver=ide.LieTrotter(ide.Projected(diffrax.Euler())), constraint=ide.LayerNorm()
    ),
    "etdab2": dict(
        solver=ide.ETDAB2(),
        control=ide.PiecewiseLinear,
        operators=(*CAUSAL, lambda key: ide.Damping(0.3)),
    ),
    "nesterov": dict(solver=ide.Nesterov()),
    "tsit5": dict(solver=diffrax.Tsit5(), control=ide.PiecewiseLinear),
    "half steps": dict(solver=diffrax.HalfSolver(diffrax.Euler())),
    "adams-bashforth": dict(
        solver=ide.AdamsBashforth(3), control=ide.PiecewiseLinear, steps_per_interval=2
    ),
}


@pytest.mark.parametrize("name", fast_first(2, SOLVERS, heavy=1))
def test_schemes(name):
    model = filled(lambda: language_model(**SOLVERS[name]))
    check_logits(model.on(ide.Mesh(intervals=4)) if "4 of 2" in name else model)


class RunningMean(ide.AbstractTokenIntegral):
    """The mean over the past, which keeps the states; with a program inside that is compiled by
    itself."""

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


def relative_bias(key):
    positions = ide.RelativeBias(jax.random.normal(key, (8, HEADS)), max_distance=6)
    return attention(key, causal=True, positions=positions)


def test_operators():
    """With positions, wrapped, and one of a user."""
    operators = (
        lambda key: ide.Scaled(relative_bias(key), 0.5),
        lambda key: ide.SourcedAttention(
            attention(key, causal=True, key_value_heads=1), key=key, std=0.3
        ),
        lambda key: RunningMean(jnp.ones(())),
    )
    check_logits(filled(lambda: language_model(operators, intervals=1)))


class Failing(diffrax.Euler):
    """Euler, whose step in the first layer reports a failure where a token is far out."""

    def step(self, terms, t0, t1, y0, args, solver_state, made_jump):
        y1, error, dense, state, _ = super().step(
            terms, t0, t1, y0, args, solver_state, made_jump
        )
        failed = (t0 < 1) & jnp.any(jnp.abs(y0) > 100)
        result = diffrax.RESULTS.where(
            failed, diffrax.RESULTS.nonlinear_divergence, diffrax.RESULTS.successful
        )
        return y1, error, dense, state, result


def test_a_failed_step_makes_the_logits_nan():
    model = filled(lambda: language_model(solver=Failing(), own=dict(tied=False)))
    tokens = TOKENS[0]
    first, far = np.argmax(tokens == tokens[5]), np.array(model.inputs.embedding)
    far[tokens[5]] *= 1e3
    far = eqx.tree_at(lambda m: m.inputs.embedding, model, jax.device_put(far))
    found, fine = (np.asarray(logits_one_by_one(x, tokens, 1)) for x in (far, model))
    assert first > 0 and np.isfinite(fine).all()
    assert largest(found[:first], fine[:first]) == 0
    # In the next layer the tokens that follow see it.
    assert np.isnan(found[first:]).all()


class Counted(AbstractSequentialSplitting):
    """Lie–Trotter with its sub-steps in a loop."""

    sub_solver: diffrax.AbstractSolver = diffrax.Euler()
    splitting_order: ClassVar[int] = 1

    def sub_steps(self, num_operators):
        return []

    def flows(self, solve, number, y0):
        return jax.lax.fori_loop(0, 2, lambda _, y: solve(0, 0.0, 0.5, y), y0), None


REFUSED = {
    "ImplicitEuler is implicit": dict(solver=ide.ImplicitEuler()),
    "Kvaerno5 in Strang is implicit": dict(solver=ide.Strang(diffrax.Kvaerno5())),
    "adaptive steps depend on the whole text": dict(
        solver=diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(1e-3, 1e-3)
    ),
    "ReversibleHeun evaluates the field before": dict(
        solver=diffrax.ReversibleHeun(), control=ide.PiecewiseLinear
    ),
    "Counted evaluates the field in a loop": dict(solver=Counted()),
    r"Attention\(…, causal=True\)": dict(operators=(attention,)),
    "Diffusion may couple tokens": dict(
        operators=(causal(), lambda key: ide.Scaled(ide.Diffusion(0.1), 0.5))
    ),
    "Neighbours may couple tokens.*pointwise: ClassVar": dict(
        operators=(lambda key: Neighbours(jnp.ones(())),)
    ),
    "own_velocity=False": dict(solver=ide.Nesterov(), own=dict(own_velocity=True)),
    "stop at different depths": dict(exit=ide.EstimatedExit(0.5)),
}


@pytest.mark.parametrize("message", REFUSED)
def test_models_that_cannot_be_decoded_token_by_token(message, unchecked):
    model = filled(lambda: language_model(**REFUSED[message]))
    assert re.search(message, ide.why_not_cached(model))
    with pytest.raises(ide.InputError, match=message):
        ide.CachedDecoder(model, CONTEXT)


def test_a_grid_is_not_marched_token_by_token():
    model = filled(language_model)
    grid = ide.Equation(model.control, ide.Free(), ide.TokenDomain.uniform((2, 3)))
    state = jax.ShapeDtypeStruct((1, WIDTH), jnp.float64)
    assert "2 dimensions" in why_not_by_token(grid, model.discretization, state)


def test_what_is_not_in_the_text_has_no_logits():
    model = filled(lambda: language_model((feed_forward,)))
    with pytest.raises(ide.InputError, match=f"tokens={CONTEXT + 1}.*from 1 to {CONTEXT}"):
        ide.CachedDecoder(model, CONTEXT + 1)
    decoder = ide.CachedDecoder(model, 6)
    extend, prefill = eqx.filter_jit(decoder.extend), eqx.filter_jit(decoder.prefill)
    _, cache = prefill(PROMPT, np.array(-1))
    found = [
        (right, extend(np.array(token), np.array(position), cache)[0])
        for token, position, right in ((1, 6, 0), (1, -1, 0), (VOCABULARY, 3, 0), (1, 3, 1))
    ]
    last = ((3, 0), (-4, 0), (-3, 1))
    found += [(right, prefill(PROMPT, np.array(place))[0]) for place, right in last]
    for right, logits in found:
        assert np.isfinite(logits).all() == right == np.isfinite(logits).any()
