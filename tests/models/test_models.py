import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest
from models.decoding import outputs_of

import ide_transformer as ide


CONTEXT, VOCABULARY = 8, 11


def language_model(
    tied=True, learned_positions=True, dropout=0.0, control=ide.PiecewiseConstant
):
    norm = ide.LayerNorm(jnp.ones(WIDTH))
    positions = ide.NoPositions() if learned_positions else ide.Rotary()
    options = dict(normalization=norm, std=0.3)

    def block(key):
        first, second = jax.random.split(key)
        operators = (
            ide.Attention(WIDTH, HEADS, key=first, causal=True, positions=positions, **options),
            ide.FeedForward(WIDTH, key=second, **options),
        )
        return tuple(ide.Dropout(operator, dropout) for operator in operators)

    return ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        control=control.build(block, 3, key=jax.random.key(1)),
        constraint=ide.Tied(ide.Free(), 3),
        discretization=ide.Discretization(ide.LieTrotter()),
        tied=tied,
        learned_positions=learned_positions,
        dropout=dropout,
        std=0.5,
        key=jax.random.key(3),
    )


TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 3, CONTEXT))


@pytest.fixture(scope="module")
def model():
    return language_model()


@pytest.mark.parametrize(
    "tied, learned_positions", [(True, True), (False, False)], ids=["tied", "rotary"]
)
def test_language_model_on_batches_is_causal_and_sees_positions(tied, learned_positions):
    model = language_model(tied, learned_positions)
    assert (model.read_out.weight is None) == tied
    assert (model.inputs.positions is None) != learned_positions
    logits = outputs_of(model, TOKENS)
    assert logits.shape == (2, 3, CONTEXT, VOCABULARY)
    tokens, logits = TOKENS[1, 2], np.asarray(logits[1, 2])
    assert largest(logits, outputs_of(model, tokens)) < 1e-12

    def with_tokens(place, *new):
        return np.concatenate([tokens[:place], new, tokens[place + len(new) :]]).astype(int)

    changed = np.asarray(outputs_of(model, with_tokens(5, (tokens[5] + 1) % VOCABULARY)))
    assert largest(changed[:5], logits[:5]) < 1e-14
    assert largest(changed[5:], logits[5:]) > 1e-3
    assert largest(outputs_of(model, tokens[:5]), logits[:5]) < 1e-13
    swapped = [outputs_of(model, with_tokens(0, *pair))[-1] for pair in ((1, 2), (2, 1))]
    assert largest(*swapped) > 1e-6


def test_the_equation_of_a_model_is_solved(model):
    @eqx.filter_jit
    def by_hand(model):
        u0, _ = model.embed(TOKENS)
        return model.outputs(ide.solve(model.equation, u0, solver=model.solver).u1)

    assert largest(by_hand(model), outputs_of(model, TOKENS)) < 1e-13


def test_tokens_that_are_known_when_a_function_is_compiled(model):
    tokens = jnp.arange(CONTEXT)
    compiled = eqx.filter_jit(lambda model: model(tokens))(model)
    assert largest(compiled, model(tokens)) < 1e-12
    beyond = tokens + VOCABULARY - CONTEXT + 1
    with pytest.raises(ide.InputError, match=f"a token {VOCABULARY}"):
        eqx.filter_jit(lambda model: model(beyond))(model)


def test_with_solver(model):
    other = model.with_solver(diffrax.Heun(), steps_per_interval=4)
    assert isinstance(other.solver, diffrax.Heun)
    solution = eqx.filter_jit(lambda m: m.solve(TOKENS))(other)
    assert solution.stats["field_evaluations"] == 3 * 4 * 2
    assert other.inputs.embedding is model.inputs.embedding
    assert largest(other.outputs(solution.u1), outputs_of(model, TOKENS)) > 1e-6


@pytest.mark.heavy
def test_adaptive_steps_converge_to_the_same_solution(model):
    adaptive = model.with_solver(
        diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(1e-8, 1e-8)
    )
    fine = model.with_solver(ide.RK4(), steps_per_interval=64)
    assert largest(outputs_of(adaptive, TOKENS), outputs_of(fine, TOKENS)) < 1e-5


def test_dropout_needs_a_key():
    model = language_model(dropout=0.5)
    key, other = jax.random.key(8), jax.random.key(9)
    without, dropped = outputs_of(model, TOKENS), outputs_of(model, TOKENS, key)
    assert (without == outputs_of(model, TOKENS)).all()
    assert (dropped == outputs_of(model, TOKENS, key)).all()
    assert largest(dropped, without) > 1e-2
    assert largest(dropped, outputs_of(model, TOKENS, other)) > 1e-2


@pytest.mark.heavy
def test_dropout_leaves_schemes_their_order():
    """The noise is drawn once per interval, so refining the steps converges."""
    model = language_model(dropout=0.3, control=ide.PiecewiseLinear)
    models = [model.with_solver(ide.RK4(), steps_per_interval=n) for n in (8, 16, 32)]
    outputs = [outputs_of(m, TOKENS[0, 0], jax.random.key(8)) for m in models]
    ratio = largest(outputs[0], outputs[1]) / largest(outputs[1], outputs[2])
    assert abs(np.log2(ratio) - 4) < 0.5


def test_generate_is_greedy_at_temperature_zero(model):
    prompt = jnp.array([1, 2, 3])
    text = ide.generate(model, prompt, 10, temperature=0.0)
    by_hand = [1, 2, 3]
    for _ in range(10):
        seen = by_hand[-CONTEXT:]
        # Causal: the tokens that fill the context up do not matter.
        logits = outputs_of(model, np.array(seen + [0] * (CONTEXT - len(seen))))
        by_hand.append(int(np.argmax(logits[len(seen) - 1])))
    assert text.tolist() == by_hand


def test_generate_draws_with_the_probabilities_of_the_model_from_the_top(model):
    prompt, key = jnp.zeros((4000, 1), int), jax.random.key(0)
    logits = np.asarray(outputs_of(model, np.zeros(CONTEXT, int)))[0]
    samples = np.asarray(ide.generate(model, prompt, 1, key=key))[:, 1]
    frequencies = np.bincount(samples, minlength=VOCABULARY) / len(samples)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    assert np.abs(frequencies - probabilities).max() < 0.04
    top = np.asarray(ide.generate(model, prompt[:64], 1, key=key, top_k=3))[:, 1]
    assert set(top.tolist()) == set(np.argsort(logits)[-3:].tolist())


def test_inputs_that_do_not_fit(model, unchecked):
    with pytest.raises(ide.InputError, match="9 tokens is longer than the context of 8"):
        model(jnp.zeros(9, int))
    with pytest.raises(ide.InputError, match="it is empty; give it at least one token"):
        ide.generate(model, jnp.zeros(0, int), 1, key=jax.random.key(0))
    with pytest.raises(ide.InputError, match=r"give key=jax\.random\.key\(0\)"):
        ide.generate(model, jnp.zeros(1, int), 1)
