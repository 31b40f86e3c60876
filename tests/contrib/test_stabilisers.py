"""Stabilisers of loops against their formulas, written out."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer.contrib import JacobianNorm, NoisySteps, Progressive
from ide_transformer.dynamics import AbstractCost, Path
from ide_transformer.errors import InputError
from ide_transformer.tasks import Batch, CrossEntropy, InstanceCrossEntropy
from ide_transformer.training.steps.step import gradient_in_parts
from tests.helpers import drawn, fast_first, largest
from tests.layered_models import CALIBRATION, HELD_OUT, LAYERS, model_of
from tests.running import logged
from tests.training import stub


BATCH = Batch(CALIBRATION, HELD_OUT)
SHARE = 0.3


def layer(model, u, domain):
    for operator in model.control(0.0):
        u = u + operator(u, domain)
    return u


def loss_of(model, u):
    log_p = jax.nn.log_softmax(model.outputs(u))
    return -jnp.mean(jnp.take_along_axis(log_p, jnp.asarray(BATCH.targets)[..., None], -1))


def moved(model, by):
    """The model with its weights moved along one direction."""
    weights, static = eqx.partition(model, eqx.is_inexact_array)
    leaves, structure = jax.tree.flatten(weights)
    leaves = [x + by * drawn(x.shape, seed) for seed, x in enumerate(leaves)]
    return eqx.combine(structure.unflatten(leaves), static)


def slope(function):
    """The value of a function of the model, and its derivative along that direction, also by
    differences. One program gives all three."""

    @jax.jit
    def both(by):
        return jax.jvp(lambda by: function(moved(model_of("tied"), by)), (by,), (1.0,))

    step = 1e-5
    (value, derivative), (ahead, _), (behind, _) = map(both, (0.0, step, -step))
    return float(value), float(derivative), float(ahead - behind) / (2 * step)


drawn_by = jax.jit(lambda key: Progressive(SHARE).drawn(key, LAYERS))


def key_where(holds):
    """A key for which n and k of the progressive loss are as wanted."""
    keys = map(jax.random.key, range(100))
    return next(x for x in keys if holds(*map(int, drawn_by(x))))


@pytest.mark.parametrize("begins", fast_first(1, ["later", "at the input"]))
def test_the_progressive_loss_is_the_one_of_the_paper(begins):
    later = begins == "later"
    key = key_where(lambda n, k: (n > 0) == later and n + k < LAYERS)
    cost = Progressive(SHARE)
    n, k = map(int, drawn_by(key))

    def by_hand(model, fixed=None):
        u, domain = model.embed(BATCH.inputs)
        states = [u]
        for _ in range(LAYERS):
            states.append(layer(model, states[-1], domain))
        v = states[n] if fixed is None else fixed
        for _ in range(k):
            v = layer(model, v, domain)
        return (1 - SHARE) * loss_of(model, states[-1]) + SHARE * loss_of(model, v), states[n]

    def objective(model):
        return CrossEntropy()(model, BATCH, key, costs={"progressive": cost}).objective

    _, fixed = eqx.filter_jit(by_hand)(model_of("tied"))
    value, found, _ = slope(objective)
    known, _, expected = slope(lambda model: by_hand(model, fixed if later else None)[0])
    assert (value, found) == (pytest.approx(known), pytest.approx(expected, rel=1e-7))
    if later:
        *_, through_all = slope(lambda model: by_hand(model)[0])
        assert abs(through_all - found) > 1e-3 * abs(found)


def test_progressive_draws_all_beginnings_and_numbers_of_steps():
    keys = jax.random.split(jax.random.key(0), 6000)
    draw = jax.jit(jax.vmap(lambda key: jnp.stack(Progressive(SHARE).drawn(key, 3))))
    n, k = draw(keys).T
    shares = np.zeros((3, 4))
    np.add.at(shares, (np.asarray(n), np.asarray(k)), 1 / len(keys))
    expected = [[0, 1 / 9, 1 / 9, 1 / 9], [0, 1 / 6, 1 / 6, 0], [0, 1 / 3, 0, 0]]
    np.testing.assert_allclose(shares, expected, atol=0.02)


def test_progressive_goes_on_with_the_noise_of_the_solve():
    """Up to the end it adds nothing."""
    key = key_where(lambda n, k: n > 0 and n + k == LAYERS)
    model = model_of("tied").on(ide.Mesh(solver=NoisySteps(initial=1.0, noise=0.5)))
    costs = {"progressive": Progressive(SHARE)}
    result = eqx.filter_jit(ft.partial(CrossEntropy(), costs=costs))(model, BATCH, key)
    assert abs(float(result.terms["costs.progressive"])) < 1e-12
    with pytest.raises(InputError, match="use it as a training cost"):
        costs["progressive"](Path(model, BATCH.inputs, jnp.zeros((2, 4, 8, 16))))


def test_the_norm_of_the_jacobian_is_the_one_of_the_matrix():
    model = model_of("tied")
    inputs = HELD_OUT[:1, :3]
    path = Path.of(model, inputs, jax.random.key(0))
    end = path.states[-1]

    @jax.jit
    @jax.jacobian
    def matrix(u):
        return layer(model, u, model.embed(inputs)[1])

    exact = float(np.sum(np.asarray(matrix(end)) ** 2)) / end.size

    @eqx.filter_jit
    def cost(model, states=path.states, probes=1):
        there = path._replace(model=model, states=states)
        return JacobianNorm(1.0, probes)(there)

    assert float(cost(model, probes=4000)) == pytest.approx(exact, rel=0.02)
    _, found, expected = slope(cost)
    assert found == pytest.approx(expected, rel=1e-6)
    assert not jax.grad(lambda states: cost(model, states))(path.states).any()


DECAY = 0.5


@ft.partial(jax.jit, static_argnames=("steps", "initial", "noise"))
def ends(u0, key, *, steps=1, initial=0.0, noise=0.0):
    """The state after three intervals of damping."""
    control = ide.Tied((ide.Damping(DECAY),), 3)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(u0.shape[-2]))
    solver = NoisySteps(ide.LieTrotter(), initial, noise, key)
    return ide.solve(equation, u0, solver=solver, steps_per_interval=steps).u1


@pytest.mark.parametrize("steps", [1, 4])
def test_noise_has_the_variance_of_its_equation(steps):
    u0 = jnp.ones((400, 25, 8))
    h = 1 / steps
    number = 3 * steps
    decay = np.exp(-DECAY * 3)
    of_noise = 0.04 * h * np.sum(np.exp(-2 * DECAY * h * np.arange(number)))
    found = ends(u0, jax.random.key(0), steps=steps, noise=0.2)
    assert float(jnp.mean(found)) == pytest.approx(decay, abs=0.005)
    assert float(jnp.var(found)) == pytest.approx(of_noise, rel=0.03)
    found = ends(u0, jax.random.key(0), steps=steps, noise=0.2, initial=2.0)
    assert abs(float(jnp.mean(found))) < 0.01
    assert float(jnp.var(found)) == pytest.approx(4 * decay**2 + of_noise, rel=0.03)


def test_without_a_key_there_is_no_noise_and_one_start():
    u0 = drawn((2, 3, 4), 0)
    assert largest(ends(u0, None, noise=0.2), np.exp(-DECAY * 3) * u0) < 1e-12
    found = ends(u0, None, initial=1.0)
    assert largest(found, jnp.broadcast_to(found[0, 0], u0.shape)) == 0
    assert largest(found, ends(-u0, None, initial=1.0)) == 0
    with pytest.raises(InputError, match="AdamsBashforth uses earlier steps"):
        memory = NoisySteps(ide.AdamsBashforth(2))
        model_of("tied").on(ide.Mesh(solver=memory)).solve(HELD_OUT)


class LossAtEnd(AbstractCost):
    of_targets = True

    def __call__(self, path):
        return path.loss(path.states[-1])


def test_a_cost_of_targets_is_weighted_by_them_in_parts_of_a_batch():
    counted = np.arange(8) < np.array([8, 1, 5, 2])[:, None]
    batch = Batch(HELD_OUT, np.where(counted, HELD_OUT, -1))
    weights, static = eqx.partition(model_of(), eqx.is_inexact_array)

    def loss(weights, batch, key):
        costs = {"end": LossAtEnd(0.5)}
        return InstanceCrossEntropy()(eqx.combine(weights, static), batch, key, costs=costs)

    (whole, result), (parts, in_parts) = (
        jax.jit(gradient_in_parts(loss, number))(weights, batch, None) for number in (1, 4)
    )
    assert float(result.objective) == pytest.approx(1.5 * float(result.loss), rel=1e-12)
    assert float(in_parts.objective) == pytest.approx(float(result.objective), rel=1e-12)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert largest(a, b) < 1e-12


def test_a_run_draws_for_its_costs_although_its_model_does_not(tmp_path):
    """Steps of the progressive loss that end at T add nothing, others something."""
    changes = "training.costs={progressive: 0.5, jacobian_norm: 0.1}", "control=tied"
    with stub.known():
        run = stub.train(tmp_path, *changes, "training.steps=12")
    values = [line["costs.progressive"] for line in logged(run.path) if "loss" in line]
    nothing = np.abs(values) < 1e-7
    assert nothing.any() and not nothing.all()
    assert all(line["costs.jacobian_norm"] > 0 for line in logged(run.path) if "loss" in line)
