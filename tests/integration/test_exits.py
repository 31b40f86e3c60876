"""Tokens that stop before the end of a solve, against a march in NumPy."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import ide_transformer as ide
from ide_transformer.integration.solve import solve_on
from tests.helpers import TOKENS, built_control, drawn, largest, make_block, random_state
from tests.solvers.linear_problem import WIDTH, Mixing, layered_equation, matrices


def read_out(u):
    return u @ drawn((u.shape[-1], 7), seed=5)


@eqx.filter_jit
def solved(equation, exit, u0, solver=ide.LieTrotter(), steps=1):
    with jax.ensure_compile_time_eval():
        saveat = diffrax.SaveAt(ts=jnp.asarray(equation.knots))
    solution = solve_on(
        ide.Mesh(steps=steps).with_defaults,
        solver,
        equation,
        u0,
        gradient=ide.Recompute(),
        saveat=saveat,
        throw=False,
        exit=exit,
        read_out=read_out,
    )
    return solution.us, solution.stats["field_evaluations"]


DOMAIN = ide.TokenDomain.uniform(TOKENS)
CONTROL = layered_equation(layers=8, kind=Mixing).control
EQUATION, U0 = ide.Equation(CONTROL, ide.Free(), DOMAIN), random_state(2, width=WIDTH)


class SecondDifference(ide.AbstractExit):
    """Exit by `|Δ_k - Δ_{k-1}| / |Δ_k|`, without a read-out."""

    def measure(self, progress):
        change = jnp.linalg.norm(progress.increment - progress.earlier, axis=-1)
        size = jnp.linalg.norm(progress.increment, axis=-1)
        # A token that does not move any more has nothing left to change.
        return jnp.where(change == 0, 0, change / jnp.where(size == 0, 1, size))


def numpy_march(u, tolerance, *, order, sample):
    """Lie–Trotter with Euler sub-steps, in which tokens stop by the second difference."""
    stopped, count = np.zeros((TOKENS, 1), bool), np.zeros(TOKENS)
    increment, states = np.full_like(u, np.nan), [u]
    for layer in matrices(2, layers=8).swapaxes(0, 1):
        new = u
        for matrix in layer:
            new = new + np.sin(1 + (new + new.mean(0)) @ matrix)
        new = np.where(stopped, u + increment if order else u, new)
        count += ~stopped[:, 0]
        earlier, increment = increment, np.where(stopped, increment, new - u)
        u = new
        states.append(u)
        change = np.linalg.norm(increment - earlier, axis=-1, keepdims=True)
        measure = change / np.linalg.norm(increment, axis=-1, keepdims=True)
        stopped |= (measure.mean() if sample else measure) < tolerance
    return np.stack(states), count


@pytest.mark.parametrize(("order", "stops"), [(0, "sample"), (1, "token")])
def test_tokens_stop_as_in_a_march_in_numpy(order, stops):
    tolerance, by_sample = 1.4, stops == "sample"
    rule = SecondDifference(tolerance, stops=stops, order=order)
    states, evaluations = solved(EQUATION, rule, U0)
    for sample in range(2):
        u = np.asarray(U0[sample])
        expected, count = numpy_march(u, tolerance, order=order, sample=by_sample)
        assert largest(states[:, sample], expected) < 1e-12
        assert np.array_equal(evaluations[sample], count)
    assert 2 < float(np.mean(evaluations)) < 8
    assert len(np.unique(evaluations)) > 1


def test_a_token_that_has_stopped_stays_on_its_constraint():
    """With two steps in each interval and two stages; the others see it."""
    operators = (*map(Mixing, map(jnp.asarray, matrices(2))), ide.Damping(jnp.full(WIDTH, 0.3)))
    equation = ide.Equation(ide.Tied(operators, 3), ide.Sphere(), DOMAIN)
    # As an array, so that the rule is compiled once for all tolerances.
    rule = eqx.tree_at(lambda x: x.tolerance, ide.EstimatedExit(0.0, order=0), jnp.zeros(()))
    exits = None, rule, jax.tree.map(lambda x: x + 0.3, rule)
    (full, _), (unstopped, of_all), (states, evaluations) = (
        map(np.asarray, solved(equation, exit, U0, diffrax.Heun(), 2)) for exit in exits
    )
    assert largest(unstopped, full) < 1e-12 and np.allclose(of_all, 12)
    stopped = evaluations < 5
    assert 0 < stopped.mean() < 1
    assert (np.diff(states[1:], axis=0)[:, stopped] == 0).all()
    assert largest(states[3, ~stopped], full[3, ~stopped]) > 1e-6


@pytest.mark.parametrize("stops", ["token", "sample"])
def test_no_token_sees_a_later_one_nor_padding(stops):
    exit, control = ide.EstimatedExit(0.05, stops=stops), built_control(make_block, 8)
    is_seen, u0 = np.arange(TOKENS) < 4, random_state(2)
    domain = DOMAIN.padded(jnp.asarray(is_seen)) if stops == "sample" else DOMAIN
    other = jnp.asarray(np.where(is_seen[:, None], u0, -50 * np.asarray(u0)))
    equation = ide.Equation(control, ide.Free(), domain)
    (states, count), (changed, recount) = (solved(equation, exit, u) for u in (u0, other))
    assert largest(states[:, :, :4], changed[:, :, :4]) < 1e-12
    assert (count[:, :4] == recount[:, :4]).all()
    assert 2 <= float(count.min()) < 8 and (len(np.unique(count)) > 1 or stops == "sample")


COUNTED: list = []


class Counting(ide.AbstractOperator):
    """`du/dt = -u`, which counts its evaluations."""

    pointwise = True

    def __call__(self, u, domain):
        io_callback(COUNTED.append, None, u[0, 0, 0], ordered=True)
        return -u


def test_nothing_is_evaluated_once_all_have_stopped():
    equation = ide.Equation(ide.Tied((Counting(),), 8), ide.Free(), DOMAIN)
    jax.block_until_ready(solved(equation, SecondDifference(1e9), U0, diffrax.Euler()))
    jax.effects_barrier()
    assert len(COUNTED) == 2


@pytest.mark.parametrize("order", [0, 1])
def test_the_estimate_is_the_divergence_of_the_outputs_at_two_extrapolated_ends(order):
    u, increment, earlier = np.random.default_rng(0).normal(size=(3, TOKENS, WIDTH))
    progress = ide.integration.Progress(u, increment, earlier, jnp.array(3.0), read_out)
    ends = [u, u + 3 * increment, u + 3 * increment + 6 * (increment - earlier)]
    q, p = (np.asarray(jax.nn.softmax(read_out(x))) for x in ends[order : order + 2])
    estimate = ide.EstimatedExit(0.0, order=order).measure(progress)
    assert largest(estimate, np.sum(p * np.log(p / q), axis=-1)) < 1e-12
