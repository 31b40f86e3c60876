"""Schemes with learned connections, and the bidirectional approximation; their published blocks
are tested in tests/published/."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest
from solvers.linear_problem import (
    TOKENS,
    WIDTH,
    difference,
    exact,
    final,
    initial_state,
    layered_equation,
    matrices,
    tied_equation,
)

import ide_transformer as ide
from ide_transformer.solvers.connections import doubly_stochastic


LAYERS, OPERATORS, STREAMS = 3, 2, 4


@pytest.fixture(scope="module")
def layered():
    return layered_equation(OPERATORS, LAYERS)


@pytest.fixture(scope="module")
def sublayers():
    """`f(u)` of each operator of each layer, in order."""
    fields = matrices(OPERATORS, layers=LAYERS)
    return [fields[k, n] for n in range(LAYERS) for k in range(OPERATORS)]


def filled(solver, seed=5, size=0.5):
    """The scheme with random weights."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (
            jnp.asarray(np.asarray(x) + size * random.normal(size=x.shape))
            if eqx.is_inexact_array(x)
            else x
        ),
        solver,
    )


@eqx.filter_jit
def schemes():
    sizes = LAYERS, OPERATORS, WIDTH
    return {
        "learned_multistep": ide.LearnedMultistep(LAYERS),
        "attention_residual": ide.AttentionResidual(*sizes),
        "hyper_connections": ide.HyperConnections(*sizes, STREAMS),
        "doubly_stochastic": ide.DoublyStochasticConnections(*sizes, STREAMS),
    }


SCHEMES = schemes()


@pytest.mark.parametrize("name", ["learned_multistep", "hyper_connections"])
def test_two_of_them_start_as_lie_trotter(layered, name):
    assert difference(final(layered, SCHEMES[name]), final(layered, ide.LieTrotter())) < 1e-13


def test_attention_residuals_start_as_the_mean_of_all_that_was_made(layered, sublayers):
    values = [np.asarray(initial_state())]
    for field in sublayers:
        values.append(np.mean(values, axis=0) @ field)
    expected = np.mean(values, axis=0)
    assert difference(final(layered, SCHEMES["attention_residual"]), expected) < 1e-13


@pytest.mark.parametrize("name", fast_first(1, SCHEMES, heavy=1))
def test_their_gradients_are_those_of_finite_differences(layered, name):
    solver = filled(SCHEMES[name], size=0.1)
    weights, static = eqx.partition(solver, eqx.is_inexact_array)

    def loss(weights, gradient):
        solution = ide.solve(
            layered, initial_state(), solver=eqx.combine(weights, static), gradient=gradient
        )
        return jnp.sum(jnp.sin(solution.u1))

    recomputed, direct = (
        jax.jit(jax.grad(loss), static_argnums=1)(weights, mode)
        for mode in (ide.Recompute(), ide.Direct())
    )
    assert eqx.tree_equal(recomputed, direct, rtol=1e-12, atol=1e-14)
    along = jax.tree.map(lambda x: np.random.default_rng(x.size).normal(size=x.shape), weights)

    @jax.jit
    def at(step):
        moved = jax.tree.map(lambda w, d: w + step * d, weights, along)
        return loss(moved, ide.Direct())

    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: np.sum(g * d), direct, along)))
    assert float(slope) == pytest.approx(float(at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-6)


def scaled_to_sum_1(logits):
    matrix = np.exp(logits)
    for _ in range(20):
        matrix = matrix / matrix.sum(0)
        matrix = matrix / matrix.sum(1, keepdims=True)
    return matrix


def test_doubly_stochastic_matrices_of_nearly_closed_streams():
    """In single precision, where the exponentials of a whole column are zero beside the largest
    one: the trained weights of a diverging run were such."""
    random = np.random.default_rng(0)
    logits, weights = random.normal(size=(2, 4, 4))
    logits = 40 * (logits - [3, 0, 0, 0])
    value, gradient = jax.jit(
        jax.value_and_grad(lambda x: jnp.sum(weights * doubly_stochastic(x)))
    )(jnp.asarray(logits, jnp.float32))
    assert value == pytest.approx(np.sum(weights * scaled_to_sum_1(logits)), rel=1e-4)
    h, differences = 1e-5, np.zeros((4, 4))
    for i, j in np.ndindex(4, 4):
        step = np.zeros((4, 4))
        step[i, j] = h
        ends = [np.sum(weights * scaled_to_sum_1(logits + x)) for x in (step, -step)]
        differences[i, j] = (ends[0] - ends[1]) / (2 * h)
    assert np.abs(differences).max() > 1e-3
    assert largest(gradient, differences) < 1e-6


@pytest.mark.parametrize("name", SCHEMES)
def test_more_steps_than_there_are_weights_for_are_refused(layered, name):
    solve = eqx.filter_jit(ide.solve)
    found = solve(layered, initial_state(), solver=SCHEMES[name])
    assert float(found.stats["field_evaluations"]) == LAYERS
    with pytest.raises(
        ide.InputError, match=r"num_steps=3\): it has weights for so many steps"
    ):
        ide.solve(layered, initial_state(), solver=SCHEMES[name], steps_per_interval=2)


def bidirectional(sign):
    """The two-step method with γ of that sign at each step after the first."""
    fields = matrices(1, layers=LAYERS)[0]
    before = np.asarray(initial_state())
    u = before + before @ fields[0]
    for layer in range(1, LAYERS):
        gamma = 0.5 * sign[layer]
        before, u = (u, gamma * before + (1 - gamma) * u + (1 + gamma) * u @ fields[layer])
    return u


def test_the_bidirectional_approximation_draws_its_sign_for_each_step():
    equation = layered_equation(1, LAYERS)
    quiet = final(equation, ide.Residual(ide.Bidirectional()))
    assert difference(quiet, bidirectional([0, 0, 0])) < 1e-13
    outcomes = [bidirectional([0, first, second]) for first in (-1, 1) for second in (-1, 1)]
    seen = set()
    for seed in range(24):
        solver = ide.Residual(ide.Bidirectional(key=jax.random.key(seed)))
        u = final(equation, solver)
        (found,) = [n for n, x in enumerate(outcomes) if difference(u, x) < 1e-13]
        seen.add(found)
    assert seen == {0, 1, 2, 3}


def test_each_sample_has_a_sign_of_its_own():
    equation = layered_equation(1, LAYERS)
    solver = ide.Residual(ide.Bidirectional(key=jax.random.key(1)))
    u0 = jnp.asarray(np.stack([initial_state()] * 16))
    u1 = ide.solve(equation, u0, solver=solver).u1
    assert len({u.round(9).tobytes() for u in np.asarray(u1)}) == 4


@eqx.filter_jit
def outputs_of(model, tokens, key=None):
    return model(tokens, key=key)


def test_a_model_draws_only_with_a_key():
    keys = jax.random.split(jax.random.key(0), 2)
    control = ide.PiecewiseConstant.build(
        lambda key: (ide.FeedForward(WIDTH, 8, std=0.5, key=key),), LAYERS, key=keys[0]
    )
    model = ide.LanguageModel(
        5,
        TOKENS,
        WIDTH,
        control=control,
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.Residual(ide.Bidirectional())),
        key=keys[1],
    )
    tokens = jnp.array([0, 1, 2])
    plain = model.with_solver(ide.LieTrotter())
    assert model.random and not plain.random
    without = outputs_of(model, tokens)
    assert difference(without, outputs_of(plain, tokens)) < 1e-13
    first, again, other = (outputs_of(model, tokens, jax.random.key(n)) for n in (1, 1, 2))
    assert difference(first, again) == 0
    assert difference(first, without) > 1e-6
    assert difference(first, other) > 1e-6 or difference(other, without) > 1e-6


def test_the_bidirectional_approximation_is_of_first_order():
    """The root mean square of the error over 512 draws, on a tied field."""
    (matrix,) = matrices(1)
    equation, u0 = tied_equation(matrix), jnp.asarray(np.stack([initial_state()] * 512))
    solver = ide.Bidirectional(key=jax.random.key(2))
    errors = []
    for steps in (16, 32, 64):
        u1 = ide.solve(equation, u0, solver=solver, steps_per_interval=steps).u1
        errors.append(float(np.sqrt(np.mean((np.asarray(u1) - exact(matrix)) ** 2))))
    orders = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert orders == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize("name", ["attention_residual", "hyper_connections"])
def test_connected_states_are_on_no_constraint(layered, name):
    equation = ide.Equation(layered.control, ide.Sphere(), layered.domain)
    with pytest.raises(ide.InputError, match="the equation needs constraint=Free"):
        ide.solve(equation, initial_state(), solver=schemes()[name])


@pytest.mark.parametrize("solver", [ide.LieTrotter(), ide.Strang(diffrax.Heun())])
def test_learned_coefficients_start_as_the_scheme_on_a_constraint(layered, solver):
    equation = ide.Equation(layered.control, ide.Sphere(), layered.domain)
    u0 = equation.constraint(0.0).project(initial_state())
    plain = ide.solve(equation, u0, solver=solver)
    learned = ide.solve(equation, u0, solver=ide.LearnedMultistep(LAYERS, solver))
    assert largest(learned.u1, plain.u1) < 1e-12
    other = ide.solve(equation, u0, solver=filled(ide.LearnedMultistep(LAYERS, solver)))
    residual = equation.constraint(0.0).residual(other.u1)
    assert jnp.max(jnp.abs(residual)) < 1e-12


@pytest.mark.parametrize("controller", [None, diffrax.PIDController(rtol=1e-3, atol=1e-3)])
def test_connections_have_weights_for_equal_steps_alone(layered, controller):
    solver = diffrax.HalfSolver(schemes()["hyper_connections"])
    with pytest.raises(ide.InputError, match="neither with a stepsize_controller nor"):
        ide.solve(layered, initial_state(), solver=solver, stepsize_controller=controller)
