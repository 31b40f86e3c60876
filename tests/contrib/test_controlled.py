"""Steering against the condition of an optimum, spectra against dense matrices, clusters
against the theory, and the command."""

import functools as ft
import json

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import ide_transformer as ide
from ide_transformer.contrib import clustering, log_norms, stretching
from ide_transformer.contrib.steering import log_odds, steer
from ide_transformer.dynamics.march import March
from tests.helpers import GOLDEN, WIDTH, built, drawn, largest, random_state
from tests.layered_models import HELD_OUT, Cubic, cubic_model, model_of
from tests.running import run_here


INPUTS = HELD_OUT[:2]


@eqx.filter_jit
def marched(model, pushes):
    """The probabilities of 3 and the slopes of its odds in the pushes."""
    march = March.of("test", model, INPUTS)

    def odds(pushes):
        states = march.states(march.no_pushes.at[1:].set(pushes))
        p = jax.nn.softmax(model.outputs(states[-1]))[:, -1, 3]
        return jnp.sum(jnp.log(p / (1 - p))), p

    slopes, p = jax.grad(odds, has_aux=True)(pushes)
    return p, slopes


@pytest.mark.heavy
def test_steering_reaches_a_probability_with_the_least_energy():
    """At an optimum the pushes are along the slopes of what they reach."""
    level = np.log(9)
    model = model_of("attention")
    steered = ft.partial(steer, model, INPUTS, lambda y: log_odds(y[..., -1, :], 3), level)
    found = steered()
    assert largest(found.reached, level) < 1e-3
    probabilities, slopes = marched(model, found.pushes)
    assert largest(probabilities, 0.9) < 1e-3
    each = np.swapaxes([found.pushes, slopes], 1, 2).reshape(2, len(INPUTS), -1)
    for (pushes, along), energy in zip(np.swapaxes(each, 0, 1), found.energy, strict=True):
        assert energy == pytest.approx(pushes @ pushes)
        cosine = pushes @ along / np.linalg.norm(pushes) / np.linalg.norm(along)
        assert cosine > 1 - 1e-3
    one = steered(intervals=[1])
    assert largest(one.reached, level) < 5e-3 and (one.energy > 2 * found.energy).all()
    assert largest(np.delete(one.pushes, 1, axis=0), 0.0) == 0


def test_exponents_and_log_norms_are_those_of_dense_matrices():
    h, matrices = 0.5, 0.5 * np.asarray(drawn((2, 4, 4), 0))
    u0 = random_state(2, tokens=3, width=4)
    control = ide.PiecewiseConstant((Cubic(jnp.asarray(matrices)),), h)
    model = cubic_model(control, ide.LieTrotter())
    norms, exponents = [], []
    for u in np.asarray(u0):
        product = np.eye(4)
        for matrix in matrices:
            jacobians = matrix.T - 3 * u[:, :, None] ** 2 * np.eye(4)  # of each token
            symmetric = (jacobians + np.swapaxes(jacobians, 1, 2)) / 2
            norms.append(np.linalg.eigvalsh(symmetric).max())
            product = (np.eye(4) + h * jacobians) @ product
            u = u + h * (u @ matrix - u**3)
        singular = np.sort(np.linalg.svd(product)[1].ravel())[::-1]
        exponents.append(np.log(singular[:5]) / (2 * h))
    found = stretching(model, u0, 5)
    assert largest(found, exponents) < 1e-6
    assert largest(log_norms(model, u0), np.reshape(norms, (2, 2))) < 1e-9


def test_tokens_cluster_as_the_theory_says():
    """Orthogonal tokens keep one cosine γ, and with β in the exponent (arXiv 2312.10794)
    dγ/dt = 2 e^{βγ} (1 - γ) ((n - 1) γ + 1) / (e^β + (n - 1) e^{βγ})."""
    n, beta, horizon = 5, 2.0, 4
    attention = built(lambda: ide.Attention(WIDTH, 1, bias=False, key=jax.random.key(0)))
    identity = np.eye(WIDTH)
    # Tokens have the length √WIDTH, and scores are over √WIDTH.
    scales = beta / np.sqrt(WIDTH), 1.0, 1.0, 1.0
    attention = eqx.tree_at(
        lambda x: (x.query.weight, x.key.weight, x.value.weight, x.output.weight),
        attention,
        tuple(jnp.asarray(scale * identity) for scale in scales),
    )
    control, domain = ide.Tied((attention,), horizon), ide.TokenDomain.uniform(n)
    equation = ide.Equation(control, ide.RMSSphere(eps=0.0), domain)
    times = np.arange(horizon + 1.0)
    options = dict(steps_per_interval=16, saveat=diffrax.SaveAt(ts=times))

    @jax.jit
    def found(u0):
        solution = ide.solve(equation, u0, solver=ide.projected(ide.RK4()), **options)
        return clustering(solution.us, beta=beta)

    def rate(_, g):
        e, eg = np.exp(beta), np.exp(beta * g)
        return 2 * eg * (1 - g) * ((n - 1) * g + 1) / (e + (n - 1) * eg)

    exact = solve_ivp(rate, (0, horizon), [0.0], t_eval=times, rtol=1e-10, atol=1e-12).y[0]
    measured = found(np.sqrt(WIDTH) * identity[:n])
    assert largest(measured.cosine, exact) < 1e-5
    assert (np.diff(measured.energy) > 0).all()
    assert measured.rank[0] == pytest.approx(n) and (np.diff(measured.rank) < 0).all()
    assert measured.clusters[0] == n and measured.clusters[-1] == 1


@pytest.mark.heavy
def test_the_command_writes_the_readings_of_heads_and_a_page(capsys, tmp_path):
    given = "--samples", 8, "--predict", "--out", tmp_path
    run_here(capsys, "dynamics", GOLDEN / "bert", *given)
    found = json.loads((tmp_path / "dynamics.json").read_text())
    assert len(found["waves"]) == len(found["layers"]) + 1 and found["heads"][0]["error, 2"] > 0
    # The loss is the distance from the native outputs: its costates are zero up to rounding.
    rows = [row for row in found["predictions"] if row["units"] != "4 operators"]
    assert rows and all(row["low"] <= row["correlation"] <= row["high"] for row in rows)
    assert "Scales" in (tmp_path / "dynamics.html").read_text()
    given = "--samples", 2, "--tokens", 3, "--out", tmp_path, "--steer", 0.05
    run_here(capsys, "dynamics", GOLDEN / "gpt2", *given)
    row = json.loads((tmp_path / "steering.json").read_text())
    # To push at all depths costs no more than in one layer, and an optimiser finds no less.
    assert row["ratio, 95 %"] < 1 and np.abs(row["above the optimiser"]).max() < 0.02
