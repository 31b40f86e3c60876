"""Costates against gradients, steering against an optimiser, spectra against dense matrices,
and clusters against the theory."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import GOLDEN, WIDTH, largest, make_block, random_state
from layered_models import CONTEXT, HELD_OUT, LAYERS, model_of
from running import run_here
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import minimize

import ide_transformer as ide
from ide_transformer.dynamics import (
    clustering,
    costates,
    log_norms,
    log_odds,
    steer,
    stretching,
)
from ide_transformer.dynamics.march import March


LEVEL = 2.197
INPUTS = HELD_OUT[:2]


def loss(outputs):
    return -jnp.mean(jax.nn.log_softmax(outputs)[..., 3])


def odds(outputs):
    """The log-odds that the next token is 3."""
    return log_odds(outputs[..., -1, :], 3)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("free", ide.Recompute()), ("free", ide.Recursive()), ("sphere", ide.Direct())],
)
def test_costates_are_gradients_with_respect_to_the_states(name, mode):
    model = model_of(name)
    found = costates(model, INPUTS, loss)
    equation, _ = model.initial_value_problem(INPUTS)
    for layer in (0, LAYERS // 2):
        blocks = jax.tree.map(lambda x: x[layer:], equation.control)  # noqa: B023
        sets = ide.Tied(equation.constraint(0.0), LAYERS - layer)
        later = ide.Equation(blocks, sets, equation.domain)

        @eqx.filter_jit
        @jax.grad
        def expected(u):
            end = ide.solve(later, u, solver=model.solver, gradient=mode).u1  # noqa: B023
            return loss(model.outputs(end))

        assert largest(found.costates[layer], expected(found.states[layer])) < 1e-10
    slopes = jax.grad(
        lambda block: jnp.sum(found.costates[0] * block[1](found.states[0], equation.domain))
    )(equation.control(0.0))
    if name == "free":
        size = np.sqrt(sum(float(jnp.sum(x**2)) for x in jax.tree.leaves(slopes)))
        assert found.stationarity[0, 1] == pytest.approx(size, rel=1e-10)


@pytest.mark.parametrize(("solver", "order"), [(ide.LieTrotter(), 1), (ide.Strang(), 2)])
def test_the_hamiltonian_of_a_tied_equation_is_constant(solver, order):
    spreads = []
    for number in (8, 16, 32, 64):
        control = ide.Tied(make_block(jax.random.key(0)), number, 2 / number)
        model = model_of("tied").with_solver(solver)
        model = eqx.tree_at(lambda m: m.control, model, control)
        model = eqx.tree_at(
            lambda m: m.constraint, model, ide.Tied(ide.Free(), number, 2 / number)
        )
        h = np.asarray(costates(model, INPUTS, loss).hamiltonian).sum(1)
        spreads.append(np.ptp(h))
    slopes = -np.diff(np.log2(spreads))
    assert abs(slopes[-1] - order) < 0.2, (spreads, slopes)


def test_steering_is_that_of_an_optimiser():
    model, inputs = model_of(), INPUTS[:1]
    found = steer(model, inputs, odds, LEVEL)
    assert largest(found.reached, LEVEL) < 1e-3
    march = March.of("test", model, inputs)
    zeros = march.no_pushes

    @jax.jit
    @jax.value_and_grad
    def value(v):
        pushes = zeros.at[1:].set(v.reshape(zeros[1:].shape))
        return odds(model.outputs(march.states(pushes)[-1]))[0]

    reached = {
        "type": "eq",
        "fun": lambda v: float(value(v)[0]) - float(found.reached[0]),
        "jac": lambda v: np.asarray(value(v)[1]),
    }
    start = np.zeros(zeros[1:].size)
    best = minimize(
        lambda v: (v @ v, 2 * v), start, jac=True, method="SLSQP", constraints=[reached]
    )
    assert best.success
    assert float(found.energy[0]) == pytest.approx(best.fun, rel=5e-3)
    assert largest(jnp.sum(found.pushes**2), found.energy) < 1e-12


def test_a_push_in_one_interval_needs_more_energy():
    found = steer(model_of(), INPUTS, odds, LEVEL)
    one = steer(model_of(), INPUTS, odds, LEVEL, intervals=[1])
    assert largest(one.reached, LEVEL) < 5e-3 and (one.energy > 2 * found.energy).all()
    assert largest(jnp.delete(one.pushes, 1, axis=0), 0.0) == 0
    for wrong in ([], [4], [-1]):
        with pytest.raises(ide.InputError, match="must be some of 0 to 3"):
            steer(model_of(), INPUTS, odds, LEVEL, intervals=wrong)
    with pytest.raises(ide.InputError, match=r"target=11: there are 11 classes; give 0 to 10"):
        log_odds(jnp.zeros(11), 11)


def test_a_level_that_no_state_gives_is_not_reached_by_pushes_without_end():
    found = steer(model_of(), INPUTS, lambda y: jnp.tanh(odds(y)), 2.0)
    march = March.of("test", model_of(), INPUTS)
    states = march.states(march.no_pushes)[1:]
    h = march.equation.control.interval_length
    assert (found.reached <= 1).all()
    assert (found.energy < 100 * h * jnp.sum(states**2, axis=(0, -2, -1))).all()


def linear_model(matrix):
    tokens, layers = 3, 2
    operator = ide.FeatureIntegral(WIDTH, bias=False, key=jax.random.key(0))
    operator = eqx.tree_at(lambda x: x.map.weight, operator, jnp.asarray(matrix))
    return ide.StateModel(
        ide.TokenDomain.uniform(tokens),
        WIDTH,
        control=ide.Tied((operator,), layers),
        constraint=ide.Free(),
        discretization=ide.Discretization(ide.RK4(), steps_per_interval=16),
    )


def test_exponents_and_log_norms_of_a_linear_equation():
    matrix = 0.3 * np.random.default_rng(0).normal(size=(WIDTH, WIDTH))
    model, u = linear_model(matrix), random_state(2, tokens=3)
    singular = np.linalg.svd(expm(2 * matrix))[1]
    expected = np.repeat(np.log(singular) / 2, 3)[:5]
    found = stretching(model, u, 5)
    assert found.shape == (2, 5) and largest(found, expected) < 1e-6
    assert largest(stretching(model, u[0], 5), expected) < 1e-6
    bound = np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    assert largest(log_norms(model, u), np.full((2, 2), bound)) < 1e-10


def test_exponents_of_a_model_are_those_of_its_dense_jacobian():
    model = model_of("sphere")
    march = March.of("test", model, INPUTS[1:])
    jacobian = jax.jacrev(lambda u: march._replace(u0=u).states(march.no_pushes)[-1])(march.u0)
    size = CONTEXT * WIDTH
    singular = np.linalg.svd(np.asarray(jacobian).reshape(size, size))[1]
    found = stretching(model, INPUTS, 4)
    assert largest(found[1], np.log(singular[:4]) / LAYERS) < 1e-6


def test_tokens_cluster_as_the_theory_says():
    """Orthogonal tokens keep one cosine γ, and with β in the exponent (arXiv 2312.10794)
    dγ/dt = 2 e^{βγ} (1 - γ) ((n - 1) γ + 1) / (e^β + (n - 1) e^{βγ})."""
    n, beta, horizon = 5, 2.0, 4.0
    attention = ide.Attention(WIDTH, 1, key=jax.random.key(0))
    identity = jnp.eye(WIDTH)
    scale = beta / np.sqrt(WIDTH)  # tokens have the length √WIDTH, and scores are over √WIDTH
    attention = eqx.tree_at(
        lambda x: (x.query.weight, x.key.weight, x.value.weight, x.output.weight),
        attention,
        (scale * identity, identity, identity, identity),
    )
    one = ide.Equation(
        ide.Tied((attention,), 1), ide.RMSSphere(eps=0.0), ide.TokenDomain.uniform(n)
    )
    states = [np.sqrt(WIDTH) * identity[:n]]
    for _ in range(int(horizon)):
        solver = ide.projected(ide.RK4())
        states.append(ide.solve(one, states[-1], solver=solver, steps_per_interval=16).u1)

    def rate(_, g):
        e, eg = np.exp(beta), np.exp(beta * g)
        return 2 * eg * (1 - g) * ((n - 1) * g + 1) / (e + (n - 1) * eg)

    times = np.arange(horizon + 1)
    exact = solve_ivp(rate, (0, horizon), [0.0], t_eval=times, rtol=1e-10, atol=1e-12).y[0]
    found = clustering(jnp.stack(states), beta=beta)
    assert largest(found.cosine, exact) < 1e-5
    assert (np.diff(found.energy) > 0).all()
    assert found.rank[0] == pytest.approx(n) and (np.diff(found.rank) < 0).all()
    assert found.clusters[0] == n and found.clusters[-1] == 1


@pytest.mark.heavy
def test_the_command_writes_its_numbers_as_it_goes_and_a_page(capsys, tmp_path, monkeypatch):
    def written():
        return json.loads((tmp_path / "dynamics.json").read_text())

    def compared(model, problem, heads):
        assert {"layers", "heads", "waves"} <= written().keys()
        yield {"reading": "one", "measured": "other", "correlation": 0.5}
        assert written()["predictions"][0]["measured"] == "other"

    monkeypatch.setattr("ide_transformer.studies.controlled.compare_readings", compared)
    given = "--samples", "8", "--predict", "--out", tmp_path
    assert "one against other: 0.50" in run_here(capsys, "dynamics.py", GOLDEN / "bert", *given)
    found = written()
    model = ide.load_model(GOLDEN / "bert").model
    layers = found["layers"]
    assert len(layers) == model.control.num_intervals and len(found["exponents"]) == 8
    assert layers[0]["costate"] > 0 and layers[-1]["stationarity, FeedForward"] > 0
    assert len(found["waves"]) == len(layers) + 1 and found["heads"][0]["error, 2"] > 0
    page = (tmp_path / "dynamics.html").read_text()
    assert page.count("<img") == 11 and "distance from the native outputs" in page


@pytest.mark.heavy
def test_the_command_compares_energies_of_steering(capsys, tmp_path):
    given = GOLDEN / "gpt2", "--samples", "2", "--tokens", "3", "--out", tmp_path, "--steer"
    assert "no input comes to a probability of 0.9; give more --iterations" in run_here(
        capsys, "dynamics.py", *given, "0.9", "--iterations", "1", expected=2
    )
    run_here(capsys, "dynamics.py", *given, "0.05")
    row = json.loads((tmp_path / "steering.json").read_text())
    assert row["reached"] == row["possible"] == row["inputs"] == 2
    assert (tmp_path / "steering.png").exists()
    # To push at all depths costs no more than in one layer, and an optimiser finds no less.
    assert row["ratio, 95 %"] < 1 and np.abs(row["above the optimiser"]).max() < 0.02
    assert sum(row["share of each layer"]) == pytest.approx(1)
