"""Models as equations that are solved by hand, with dropout, horizons and exits; whether one is
causal is tried: on every operator, under every scheme, and on leaks."""

import functools as ft
import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.equation import AbstractOperator
from ide_transformer.models import check_causal, mean_vectors
from ide_transformer.training import SolverConfig
from ide_transformer.training.steps.build import with_solver
from tests.helpers import fast_first, largest
from tests.models import examples as small
from tests.models.examples import CONTEXT, TOKENS, WIDTH, causal, outputs_of
from tests.training.mine import Ahead


MODEL = small.language_model()


class Captions(ide.AbstractInputs):
    """Pairs of images and texts, as a user embeds them: a text attends to an image."""

    encoder: ide.Model
    text: ide.models.TextInputs

    @property
    def features(self):
        return self.text.features

    @property
    def domain(self):
        return self.text.domain

    def embed(self, inputs, *, key=None):
        images, tokens = inputs
        solution = self.encoder.solve(images)
        encoded = ide.models.Encoded(self.encoder.outputs(solution.u1), MASSES)
        return self.text.embed(tokens)._replace(encoded=encoded, before=(solution,))


IMAGES = small.normal(2, 4, 6, 3)
# The weights of the tokens of an image.
MASSES = np.linspace(0.5, 2.0, 7)


def test_an_encoder_and_a_decoder_are_two_equations():
    encoder = small.image_encoder().with_solver(diffrax.Heun()).on(ide.Mesh(steps=4))
    operators = (causal(), small.cross_attention)
    decoder = small.language_model(operators, text_options=dict(tied=False))
    model = decoder.with_inputs(Captions(encoder, decoder.inputs))
    assert isinstance(model.solver, ide.LieTrotter) and not model.random

    @eqx.filter_jit
    def both_ways(images):
        v0, domain = encoder.embed(images)
        fine = dict(solver=encoder.solver, steps_per_interval=4, throw=False)
        v1 = ide.solve(encoder.equation, v0, **fine).u1
        u0, text_domain = decoder.embed(TOKENS)
        image_domain = ide.TokenDomain(domain.points, MASSES)
        control = ide.equation.Sourced(decoder.control, encoder.outputs(v1), image_domain)
        equation = ide.Equation(control, decoder.constraint, text_domain)
        u1 = ide.solve(equation, u0, solver=decoder.solver, throw=False).u1
        return u1, model.solve((images, TOKENS))

    by_hand, solution = both_ways(IMAGES)
    assert largest(solution.u1, by_hand) < 1e-13
    assert solution.stats["field_evaluations"] == 2 * 4 * 2 + 2 and solution.succeeded
    _, failed = both_ways(IMAGES * np.nan)
    assert not failed.succeeded and failed.failed_at == 1


def test_dropout_of_the_embedding_needs_a_key():
    model = small.language_model((small.feed_forward,), text_options=dict(dropout=0.5))
    keys = map(jax.random.key, (8, 9, 8))
    first, other, again = (small.embedded_by(model, TOKENS, key)[0] for key in keys)
    assert (first == again).all() and (first != other).any()
    assert 0.3 < np.mean(np.asarray(first) == 0) < 0.7
    assert (small.embedded_by(model, TOKENS)[0] != 0).all()


def test_a_longer_horizon_passes_through_the_old_end():
    """Against steps made by hand: half of the way of four steps is the state after two."""
    model = small.language_model(control=ide.Tied)
    longer = model.on(ide.Mesh(horizon=4.0))
    assert longer.control.layers == longer.constraint.layers == 4
    assert longer.equation.horizon == 4.0
    u, domain = small.embedded_by(model, TOKENS)

    @eqx.filter_jit
    def step(u):
        return ft.reduce(lambda u, operator: u + operator(u, domain), model.control.block, u)

    states = [*itertools.accumulate(range(4), lambda u, _: step(u), initial=u)]
    saveat = diffrax.SaveAt(ts=np.arange(5.0))
    path = eqx.filter_jit(lambda model: model.solve(TOKENS, saveat=saveat).us)(longer)
    assert largest(path, np.stack(states)) < 1e-12
    assert largest(small.solution_of(model, TOKENS).u1, states[2]) < 1e-12
    outputs = eqx.filter_jit(model.outputs)(states[4])
    assert largest(outputs_of(longer, TOKENS), outputs) < 1e-12
    finer = model.on(ide.Mesh(layers=4)).on(ide.Mesh(horizon=1.0))
    assert (finer.control.layers, finer.control.interval_length) == (2, 0.5)
    with pytest.raises(ide.InputError, match="PiecewiseConstant"):
        MODEL.on(ide.Mesh(horizon=6.0))


def test_a_scheme_keeps_its_learned_weights_on_a_mesh_and_inside_another():
    scheme = ide.contrib.Nesterov()
    model = MODEL.with_solver(scheme)
    around = model.with_solver(ide.AlgebraicallyReversible(model.solver))
    for same in (model.on(ide.Mesh(layers=4, steps=3)).solver, around.solver.solver):
        assert eqx.tree_equal(same, scheme)
    with pytest.raises(ide.InputError, match=r"kind=strang.*learned"):
        with_solver(model, SolverConfig(kind="strang"))


FINE = {
    "layers=1000000000": ide.Mesh(layers=10**9),
    "layers=50000000 .* IDE_TRANSFORMER_MEMORY": ide.Mesh(layers=5 * 10**7),
    r"layers=\d times steps=1000": ide.Mesh(steps=10**9),
    "tokens=100000000000 .* memory": ide.Mesh(tokens=10**11),
    "width=100000000000 .* memory": ide.Mesh(width=10**11),
}


@pytest.mark.parametrize("message", FINE)
def test_meshes_that_are_too_fine(message, monkeypatch):
    """Before anything is made: these took gigabytes or hours."""
    monkeypatch.setenv("IDE_TRANSFORMER_MEMORY", "4")
    with pytest.raises(ide.InputError, match=message):
        ide.functional(MODEL).on(FINE[message])


def test_a_sample_stops_where_the_output_is_one_for_all_tokens():
    model = small.image_classifier(class_token=False, control=ide.Tied, intervals=6)
    images = small.normal(6, 4, 6, 1)
    with pytest.raises(ide.InputError, match="stops='sample'"):
        model.with_exit(ide.EstimatedExit(0.01))(images)
    stopped = model.with_exit(ide.EstimatedExit(0.1, stops="sample"))
    evaluations = small.solution_of(stopped, images).stats["field_evaluations"]
    assert evaluations.shape == (6, model.domain.num_tokens)
    assert (evaluations == evaluations[:, :1]).all()
    assert len(np.unique(evaluations)) > 1


def test_the_mean_vector_of_a_text_is_without_padding():
    states = np.random.default_rng(0).normal(size=(3, 4))
    for mask, mean in ((None, states.mean(0)), (np.arange(3) < 2, states[:2].mean(0))):
        vector = mean_vectors(jnp.asarray(states), ide.Text(np.arange(3), mask))
        assert largest(vector, mean / np.linalg.norm(mean)) < 1e-12


def test_tokens_that_a_model_does_not_know(unchecked):
    classifier = small.sequence_classifier()
    with pytest.raises(ide.InputError, match="class_token=True"):
        classifier(ide.Text(TOKENS, TOKENS >= 0))
    with pytest.raises(ide.InputError, match=f"context of {CONTEXT}"):
        classifier(np.zeros(CONTEXT + 1, int))
    with pytest.raises(ide.InputError, match=f"token {small.VOCABULARY}"):
        eqx.filter_jit(lambda model: model(np.array([1, small.VOCABULARY])))(classifier)
    # What a compiled program is given cannot be refused.
    for tokens in (TOKENS + 1, TOKENS - 1):
        is_known = ((tokens >= 0) & (tokens < small.VOCABULARY)).all(-1)
        is_finite = np.isfinite(outputs_of(classifier, jax.device_put(tokens))).all(-1)
        np.testing.assert_array_equal(is_finite, is_known)


def model_of(*operators, **options):
    """A language model of these operators, each as it is or as it is made of a key."""
    builders = [
        (lambda key, x=x: x) if isinstance(x, AbstractOperator) else x for x in operators
    ]
    # A norm of each token would hide what changes its size alone.
    options |= dict(control=ide.Tied, text_options=dict(output_normalization=ide.Free()))
    return small.language_model(builders, **options)


# By a rate that is zero at first.
AHEAD = Ahead(jnp.zeros(WIDTH))


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


LOOSE = diffrax.PIDController(0.1, 0.1)
ADAPTIVE = dict(solver=diffrax.Tsit5(), stepsize_controller=LOOSE, steps_for="sample")
EXIT = ide.EstimatedExit(0.1, stops="sample")


def test_tolerances_of_a_mesh_are_those_of_its_controller():
    model = MODEL.with_solver(diffrax.Tsit5())
    meshes = ide.Mesh(rtol=0.1, atol=0.1), ide.Mesh(stepsize_controller=LOOSE)
    outputs, expected = (model.on(mesh)(TOKENS) for mesh in meshes)
    np.testing.assert_array_equal(outputs, expected)
    assert model.on(meshes[0]).on(ide.Mesh(steps=2)).mesh.rtol is None
    for wrong in (dict(rtol=0.1), dict(rtol=0.1, atol=0.1, steps=2)):
        with pytest.raises(ide.InputError, match=r"Mesh: .*rtol"):
            ide.Mesh(**wrong)


LEAKS = {
    "operator 1, Ahead": lambda: model_of(causal(), AHEAD),
    "operator 0, Attention.*causal=True": lambda: model_of(small.attention),
    "operator 0, ByWeights": lambda: model_of(ByWeights()),
    "operator 0, SaysThatItIsPointwise": lambda: model_of(SaysThatItIsPointwise()),
    "Centred": lambda: model_of(causal(), constraint=Centred()),
    "stops='token'": lambda: model_of(causal()).with_exit(EXIT),
    "Mixing": lambda: model_of(small.feed_forward, solver=Mixing()),
    # Adaptive steps hide none.
    "Ahead(?#adaptive)": lambda: model_of(AHEAD, **ADAPTIVE),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_found_and_named(leak):
    with pytest.raises(ide.InputError, match=f"text: .*{leak}"):
        check_causal("text", LEAKS[leak]())


def test_no_text_is_written_with_a_leak():
    with pytest.raises(ide.InputError, match=r"generate: .*Ahead"):
        ide.generate(model_of(AHEAD), TOKENS, 1, temperature=0.0)


NO_LEAKS = dict(solver=ide.ImplicitMidpoint()), ADAPTIVE, dict(constraint=ide.Sphere())


@pytest.mark.parametrize("options", fast_first(1, NO_LEAKS))
def test_no_alarm(options):
    check_causal("text", model_of(causal(), small.feed_forward, **options))
