"""Models whose width is a resolution."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, make_equation
from models.decoding import outputs_of

import ide_transformer as ide


VOCABULARY, CONTEXT = 7, 6
TOKENS = jnp.asarray(np.random.default_rng(7).integers(0, VOCABULARY, (2, CONTEXT)))


def language_model(solver=ide.LieTrotter(), **options):
    return ide.LanguageModel(
        VOCABULARY,
        CONTEXT,
        WIDTH,
        control=make_equation(intervals=2).control,
        constraint=ide.Free(),
        discretization=ide.Discretization(solver),
        key=jax.random.key(0),
        std=0.5,
        output_normalization=ide.LayerNorm(jnp.linspace(0.5, 1.5, WIDTH)),
        **options,
    )


def functional(model, basis=ide.Nodal(), width=WIDTH, rule="midpoint"):
    space = ide.FunctionSpace(basis, WIDTH, ide.FeatureDomain(width, rule))
    return dataclasses.replace(model, space=space)


@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.heavy)])
def test_an_ordinary_model_is_one_of_nodal_functions(tied):
    model = language_model(tied=tied)
    expected = outputs_of(model, TOKENS)
    same = functional(model)
    np.testing.assert_allclose(outputs_of(same, TOKENS), expected, atol=1e-12)
    with pytest.raises(ide.InputError, match=f"take a multiple of {WIDTH} points"):
        same.on(ide.Mesh(width=WIDTH + 4))
    wide = same.on(ide.Mesh(width=3 * WIDTH))
    assert wide.features == 3 * WIDTH
    assert eqx.filter_eval_shape(wide.solve, TOKENS).u1.shape == (2, CONTEXT, 3 * WIDTH)
    np.testing.assert_allclose(outputs_of(wide, TOKENS), expected, atol=1e-12)


@pytest.mark.thorough
@pytest.mark.heavy
def test_outputs_converge_in_width():
    model = functional(language_model(), ide.Cosine())
    fine = outputs_of(model.on(ide.Mesh(width=256)), TOKENS)
    coarse, finer = (
        abs(outputs_of(model.on(ide.Mesh(width=width)), TOKENS) - fine).max()
        for width in (32, 64)
    )
    assert finer < coarse / 20


@pytest.mark.heavy
def test_the_ordinary_model_behind_it_gives_the_same_and_writes_text():
    model = functional(language_model(), ide.Cosine(), 2 * WIDTH)
    ordinary = model.ordinary
    assert ordinary.space is None
    np.testing.assert_allclose(
        outputs_of(ordinary, TOKENS), outputs_of(model, TOKENS), atol=1e-13
    )
    written = ide.generate(ordinary, TOKENS[0, :2], 3, temperature=0.0)
    text = np.array(TOKENS[0])
    for length in (2, 3, 4):
        # Causal: the tokens that fill the context up do not matter.
        text[length] = np.argmax(np.asarray(outputs_of(model, text))[length - 1])
    np.testing.assert_array_equal(np.asarray(written)[-3:], text[2:5])


@pytest.mark.heavy
def test_a_model_of_functions_of_tokens_and_features():
    model = ide.OperatorModel(
        16,
        WIDTH,
        control=make_equation(intervals=2, causal=False).control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.LieTrotter()),
        modes=3,
        std=0.5,
        key=jax.random.key(3),
    )
    a = np.cos(2 * np.pi * np.arange(16) / 16)
    same = functional(model)
    np.testing.assert_allclose(
        outputs_of(same.on(ide.Mesh(width=2 * WIDTH)), a), outputs_of(model, a), atol=1e-12
    )
    smooth = functional(model, ide.Cosine())
    widths = [outputs_of(smooth.on(ide.Mesh(width=width)), a) for width in (32, 64, 256)]
    assert abs(widths[1] - widths[2]).max() < abs(widths[0] - widths[2]).max() / 20


@pytest.mark.heavy
def test_the_start_of_a_velocity_is_a_function_too():
    model = language_model(ide.Nesterov(), own_velocity=True)
    wide = functional(model).on(ide.Mesh(width=2 * WIDTH))
    np.testing.assert_allclose(outputs_of(wide, TOKENS), outputs_of(model, TOKENS), atol=1e-12)


@pytest.mark.heavy
def test_every_kind_of_gradient_reaches_the_coefficients():
    model = functional(language_model(), ide.Warped(), 2 * WIDTH)

    def gradient(mode):
        def loss(model):
            return jnp.sum(model.with_options(gradient=mode)(TOKENS) ** 2)

        return jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(loss))(model))

    expected = gradient(ide.Direct())
    assert all(np.abs(x).max() > 0 for x in expected)
    for mode in (ide.Recompute(), ide.Recursive()):
        for x, y in zip(gradient(mode), expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-9)


def test_what_is_no_function_of_the_features():
    model = language_model(ide.AttentionResidual(2, 2, WIDTH))
    assert functional(model).ordinary.features == WIDTH
    with pytest.raises(ide.InputError, match=f"a weight for each of {WIDTH} features"):
        outputs_of(functional(model).on(ide.Mesh(width=2 * WIDTH)), TOKENS)
    space = ide.FunctionSpace(ide.Cosine(), 8, ide.FeatureDomain(16))
    with pytest.raises(ide.InputError, match="8 modes for inputs of 16 features"):
        dataclasses.replace(language_model(), space=space)
    with pytest.raises(ide.InputError, match="ImageInputs is no function"):
        classifier = ide.ImageClassifier(
            (4, 4, 1),
            2,
            2,
            WIDTH,
            control=make_equation(intervals=1, causal=False).control,
            constraint=ide.Free(),
            discretization=ide.Discretization(ide.LieTrotter()),
            key=jax.random.key(0),
        )
        outputs_of(functional(classifier), np.ones((4, 4, 1)))
