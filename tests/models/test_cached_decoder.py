"""The logits of a decoder with a cache are those of the model; models that it refuses."""

import re
from typing import ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import fast_first, largest
from models.decoding import (
    CONTEXT,
    HEADS,
    TOKENS,
    VOCABULARY,
    WIDTH,
    Neighbours,
    attention,
    check_logits,
    feed_forward,
    language_model,
    logits_one_by_one,
    with_options,
)

import ide_transformer as ide
from ide_transformer.integration import why_not_by_token
from ide_transformer.solvers import AbstractSequentialSplitting


def test_logits_in_both_precisions():
    model = language_model(ide.LieTrotter())
    check_logits(model)
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, model
    )
    check_logits(single, tolerance=1e-5)


def test_products_in_low_precision():
    model = language_model()
    low = model.with_options(compute_dtype="bfloat16")
    check_logits(low)
    assert (
        largest(logits_one_by_one(low, TOKENS, 4), logits_one_by_one(model, TOKENS, 4)) > 0.01
    )


# Each of them goes another way through the march; the others are a second look.
SOLVERS = {
    "heun": dict(solver=diffrax.Heun(), control=ide.PiecewiseLinear),
    "post-norm": dict(
        solver=ide.LieTrotter(ide.Projected(diffrax.Euler())), constraint=ide.LayerNorm()
    ),
}
MORE = {
    "rk4, chebyshev, 2 steps": dict(
        solver=ide.RK4(), control=ide.Chebyshev, steps_per_interval=2
    ),
    "adams-bashforth": dict(
        solver=ide.AdamsBashforth(3), control=ide.PiecewiseLinear, intervals=4
    ),
    "euler": dict(solver=diffrax.Euler()),
    "strang(heun)": dict(solver=ide.Strang(diffrax.Heun())),
    "rk4": dict(solver=ide.RK4()),
    "tsit5": dict(solver=diffrax.Tsit5(), control=ide.PiecewiseLinear),
    "residual(rk4)": dict(solver=ide.Residual(ide.RK4())),
    "half steps": dict(solver=diffrax.HalfSolver(diffrax.Euler())),
    "residual(gated rk2)": dict(solver=ide.Residual(ide.GatedRK2(WIDTH))),
    "nesterov": dict(solver=ide.Nesterov()),
    "leapfrog": dict(solver=ide.Leapfrog(), control=ide.PiecewiseLinear),
    "adams-bashforth, 2 steps": dict(
        solver=ide.AdamsBashforth(), control=ide.PiecewiseLinear, steps_per_interval=2
    ),
    "etdab2": dict(
        solver=ide.ETDAB2(),
        control=ide.PiecewiseLinear,
        operators=(attention, feed_forward, lambda key: ide.Damping(0.3)),
        intervals=3,
    ),
    "sphere": dict(solver=ide.Projected(ide.RK4()), constraint=ide.Sphere()),
}


@pytest.mark.parametrize("name", fast_first(1, SOLVERS))
def test_schemes(name):
    check_logits(language_model(**SOLVERS[name]))


@pytest.mark.heavy
@pytest.mark.parametrize("name", fast_first(0, MORE, heavy=4))
def test_more_schemes(name):
    check_logits(language_model(**MORE[name]))


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
    table = jax.random.normal(key, (8, HEADS))
    positions = ide.RelativeBias(table, max_distance=6)
    return eqx.tree_at(lambda x: x.positions, attention(key), positions)


OPERATORS = {
    "positions": [
        with_options(key_value_heads=2, positions=ide.Rotary()),
        with_options(window=3, positions=ide.Rotary()),
        relative_bias,
    ],
    "wrapped": [
        lambda key: ide.Scaled(attention(key, key_value_heads=1), 0.5),
        lambda key: ide.Dropout(attention(key), 0.5),
        lambda key: ide.SourcedAttention(attention(key), key=key, std=0.3),
        lambda key: ide.Relaxation(0.3),
    ],
    "of a user": [lambda key: RunningMean(jnp.ones(()))],
}


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=[pytest.mark.heavy] * (x == "wrapped")) for x in OPERATORS]
)
def test_operators(name):
    operators = (*OPERATORS[name], feed_forward)
    check_logits(language_model(operators=operators, learned_positions=name != "positions"))


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
    model = language_model(diffrax.Euler())
    far = model.inputs.embedding.at[TOKENS[0, 5]].mul(1e3)
    model = eqx.tree_at(lambda m: m.inputs.embedding, model, far)
    first = int(jnp.argmax(TOKENS[0] == TOKENS[0, 5]))
    fine = logits_one_by_one(model, TOKENS[0], 1)
    assert jnp.isfinite(fine).all()
    failing = eqx.tree_at(lambda m: m.discretization, model, ide.Discretization(Failing()))
    found = logits_one_by_one(failing, TOKENS[0], 1)
    assert first > 0
    assert largest(found[:first], fine[:first]) == 0
    # In the next layer the tokens that follow see it.
    assert jnp.isnan(found[first:]).all()


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
def test_models_that_cannot_be_decoded_token_by_token(message, unchecked):
    model = language_model(**REFUSED[message])
    assert re.search(message, ide.why_not_cached(model))
    with pytest.raises(ide.InputError, match=message):
        ide.CachedDecoder(model, CONTEXT)


def test_inputs_that_do_not_fit(unchecked):
    model = language_model()
    with pytest.raises(ide.InputError, match=f"tokens={CONTEXT + 1}.*from 1 to {CONTEXT}"):
        ide.CachedDecoder(model, CONTEXT + 1)
    with pytest.raises(ide.InputError, match="3 tokens is longer than the context of 2"):
        ide.CachedDecoder(model, 2).prefill(TOKENS[0, :3])
    decoder = ide.CachedDecoder(model, 6)
    _, cache = decoder.prefill(TOKENS[0, :3])
    with pytest.raises(ide.InputError, match=f"a token {VOCABULARY}"):
        decoder.extend(jnp.asarray(VOCABULARY), 3, cache)
    with pytest.raises(ide.InputError, match="a token -1"):
        decoder.prefill(jnp.array([-1, 2]))
    # What a compiled program is given cannot be refused.
    extend, prefill = eqx.filter_jit(decoder.extend), eqx.filter_jit(decoder.prefill)
    for token, position, right in ((1, 6, 0), (1, -1, 0), (VOCABULARY, 3, 0), (1, 3, 1)):
        logits, _ = extend(jnp.asarray(token), jnp.asarray(position), cache)
        assert jnp.isfinite(logits).all() == right == jnp.isfinite(logits).any()
    for last, right in ((3, 0), (-4, 0), (-3, 1)):
        logits, _ = prefill(TOKENS[0, :3], jnp.asarray(last))
        assert jnp.isfinite(logits).all() == right == jnp.isfinite(logits).any()
    grid = ide.Equation(model.control, ide.Free(), ide.TokenDomain.uniform((2, 3)))
    state = jax.ShapeDtypeStruct((1, WIDTH), jnp.float64)
    assert "2 dimensions" in why_not_by_token(grid, model.discretization, state)
