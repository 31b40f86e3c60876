import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HEADS, WIDTH, largest

import ide_transformer as ide


CONTEXT, VOCABULARY = 8, 11


def blocks(key, causal, positions, dropout):
    first, second = jax.random.split(key)
    norm = ide.LayerNorm(jnp.ones(WIDTH))
    attention = ide.Attention(
        WIDTH, HEADS, key=first, causal=causal, positions=positions, normalization=norm, std=0.3
    )
    operators = (attention, ide.FeedForward(WIDTH, key=second, normalization=norm, std=0.3))
    return tuple(ide.Dropout(operator, dropout) for operator in operators)


def parts(causal, positions=ide.NoPositions(), dropout=0.0, control=ide.PiecewiseConstant):
    theta = control.build(
        lambda key: blocks(key, causal, positions, dropout), 3, key=jax.random.key(1)
    )
    return dict(
        control=theta,
        constraint=ide.Tied(ide.Free(), 3),
        discretization=ide.Discretization(ide.LieTrotter()),
        dropout=dropout,
        std=0.5,
        key=jax.random.key(3),
    )


def language_model(tied=True, learned_positions=True, **options):
    positions = ide.NoPositions() if learned_positions else ide.Rotary()
    return ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        tied=tied,
        learned_positions=learned_positions,
        **parts(True, positions, **options),
    )


def classifier(class_token, channels=1):
    return ide.ImageClassifier(
        (4, 6, channels), 2, 5, WIDTH, class_token=class_token, **parts(False)
    )


TOKENS = jax.random.randint(jax.random.key(0), (2, 3, CONTEXT), 0, VOCABULARY)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("learned_positions", [True, False])
def test_language_model_on_one_sample_and_on_batches(tied, learned_positions):
    model = language_model(tied, learned_positions)
    logits = model(TOKENS)
    assert logits.shape == (2, 3, CONTEXT, VOCABULARY)
    assert largest(logits[1, 2], model(TOKENS[1, 2])) < 1e-12
    assert (model.readout is None) == tied
    assert (model.positions is None) != learned_positions


@pytest.mark.parametrize("learned_positions", [True, False])
def test_language_model_is_causal_and_sees_positions(learned_positions):
    model = language_model(learned_positions=learned_positions)
    tokens = TOKENS[0, 0]
    changed = model(tokens.at[5].set((tokens[5] + 1) % VOCABULARY))
    assert largest(changed[:5], model(tokens)[:5]) < 1e-14
    assert largest(changed[5:], model(tokens)[5:]) > 1e-3
    assert largest(model(tokens[:5]), model(tokens)[:5]) < 1e-13
    swapped = tokens.at[:2].set(jnp.array([1, 2]))
    other = tokens.at[:2].set(jnp.array([2, 1]))
    assert largest(model(swapped)[-1], model(other)[-1]) > 1e-6


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_image_classifier_on_one_image_and_on_batches(class_token, channels):
    model = classifier(class_token, channels)
    images = jax.random.normal(jax.random.key(0), (2, 3, 4, 6, channels))
    logits = model(images)
    assert logits.shape == (2, 3, 5)
    assert largest(logits[1, 2], model(images[1, 2])) < 1e-13
    if channels == 1:
        assert largest(model(images[..., 0]), logits) < 1e-14
    assert model.equation.domain.points.shape == (6 + class_token, 2)


def test_patches_are_the_squares_of_an_image():
    from ide_transformer.models.patches import split_patches

    image = jnp.arange(24.0).reshape(4, 6, 1)
    patches = split_patches(image, 2)
    assert patches[0].tolist() == [0, 1, 6, 7]
    assert patches[1].tolist() == [2, 3, 8, 9]
    assert patches[3].tolist() == [12, 13, 18, 19]


def test_the_equation_of_a_model_is_what_it_solves():
    model = language_model()
    u0, _ = model.embed(TOKENS)
    u1 = ide.solve(model.equation, u0, solver=model.solver).u1
    assert largest(model.read_out(u1), model(TOKENS)) < 1e-13


def test_with_solver():
    model = language_model()
    other = model.with_solver(diffrax.Heun(), steps_per_interval=4)
    assert isinstance(other.solver, diffrax.Heun)
    assert other.solve(TOKENS).stats["field_evaluations"] == 3 * 4 * 2
    assert other.embedding is model.embedding
    assert largest(other(TOKENS), model(TOKENS)) > 1e-6
    adaptive = model.with_solver(
        diffrax.Tsit5(), stepsize_controller=diffrax.PIDController(1e-8, 1e-8)
    )
    fine = model.with_solver(ide.RK4(), steps_per_interval=64)
    assert largest(adaptive(TOKENS), fine(TOKENS)) < 1e-5


def test_dropout_needs_a_key():
    model = language_model(dropout=0.5)
    key = jax.random.key(8)
    assert (model(TOKENS) == model(TOKENS)).all()
    assert largest(model(TOKENS, key=key), model(TOKENS)) > 1e-2
    assert (model(TOKENS, key=key) == model(TOKENS, key=key)).all()
    assert largest(model(TOKENS, key=key), model(TOKENS, key=jax.random.key(9))) > 1e-2


def test_dropout_leaves_schemes_their_order():
    """The noise is drawn once per interval, so refining the steps converges."""
    model = language_model(dropout=0.3, control=ide.PiecewiseLinear)
    key = jax.random.key(8)
    outputs = [
        model.with_solver(ide.RK4(), steps_per_interval=n)(TOKENS, key=key) for n in (8, 16, 32)
    ]
    ratio = largest(outputs[0], outputs[1]) / largest(outputs[1], outputs[2])
    assert abs(np.log2(ratio) - 4) < 0.5


def test_generate_is_greedy_at_temperature_zero():
    model = language_model()
    prompt = jnp.array([1, 2, 3])
    text = ide.generate(model, prompt, 10, key=jax.random.key(0), temperature=0.0)
    by_hand = list(prompt)
    for _ in range(10):
        by_hand.append(int(jnp.argmax(model(jnp.array(by_hand[-CONTEXT:]))[-1])))
    assert text.tolist() == [int(x) for x in by_hand]


def test_generate_draws_from_the_top():
    model = language_model()
    prompt = jnp.zeros((64, 1), int)
    text = ide.generate(model, prompt, 1, key=jax.random.key(0), top_k=3)
    best = jnp.argsort(model(jnp.zeros(1, int))[-1])[-3:]
    assert set(text[:, 1].tolist()) == set(best.tolist())


def test_generate_draws_with_the_probabilities_of_the_model():
    model = language_model()
    samples = ide.generate(model, jnp.zeros((4000, 1), int), 1, key=jax.random.key(0))[:, 1]
    frequencies = jnp.bincount(samples, length=VOCABULARY) / len(samples)
    assert largest(frequencies, jax.nn.softmax(model(jnp.zeros(1, int))[-1])) < 0.04


def test_inputs_that_do_not_fit(unchecked):
    model = language_model()
    with pytest.raises(ide.InputError, match="9 tokens is longer than the context of 8"):
        model(jnp.zeros(9, int))
    with pytest.raises(ide.InputError, match="do not divide images of 4 by 6"):
        ide.ImageClassifier((4, 6, 1), 4, 5, WIDTH, **parts(False))
    with pytest.raises(ide.InputError, match="built for"):
        classifier(True)(jnp.zeros((5, 5)))
    with pytest.raises(ide.InputError, match="prompt is empty"):
        ide.generate(model, jnp.zeros(0, int), 1, key=jax.random.key(0))
    with pytest.raises(ide.InputError, match="temperature=-1"):
        ide.generate(model, jnp.zeros(1, int), 1, key=jax.random.key(0), temperature=-1.0)
    with pytest.raises(ide.InputError, match="top_k=0"):
        ide.generate(model, jnp.zeros(1, int), 1, key=jax.random.key(0), top_k=0)
