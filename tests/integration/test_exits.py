"""Tokens that stop before the end of a solve, against a march in NumPy."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, drawn, largest, make_block, make_equation, random_state
from jax.experimental import io_callback
from solvers.linear_problem import WIDTH, Mixing, layered_equation, matrices

import ide_transformer as ide
from ide_transformer.integration import divergence


def read_out(u):
    return u @ drawn((u.shape[-1], 7), seed=5)


def solved(equation, exit, u0, *options):
    """The states at the ends of the intervals, and the evaluations of each token."""
    if exit is not None:
        # As an array, so that a rule is compiled once for all tolerances.
        exit = eqx.tree_at(lambda e: e.tolerance, exit, jnp.asarray(exit.tolerance))
    return _solved(equation, exit, u0, *options)


@eqx.filter_jit
def _solved(equation, exit, u0, solver=ide.LieTrotter(), steps=1):
    with jax.ensure_compile_time_eval():
        saveat = diffrax.SaveAt(ts=jnp.asarray(equation.knots))
    discretization = ide.Discretization(solver, steps, exit=exit)
    solution = discretization.solve(equation, u0, saveat=saveat, throw=False, read_out=read_out)
    return solution.us, solution.stats["field_evaluations"]


DOMAIN = ide.TokenDomain.uniform(TOKENS)
CONTROL = layered_equation(layers=8, kind=Mixing).control
EQUATION = ide.Equation(CONTROL, ide.Free(), DOMAIN)
U0 = random_state(2, width=WIDTH)


class SecondDifference(ide.AbstractExit):
    """Exit by `|Δ_k - Δ_{k-1}| / |Δ_k|`, without a read-out."""

    def measure(self, progress):
        change = jnp.linalg.norm(progress.increment - progress.earlier, axis=-1)
        size = jnp.linalg.norm(progress.increment, axis=-1)
        # A token that does not move any more has nothing left to change.
        return jnp.where(change == 0, 0, change / jnp.where(size == 0, 1, size))


def numpy_march(u, tolerance, *, order, sample):
    """Lie–Trotter with Euler sub-steps, in which tokens stop by the second difference."""
    stopped, count = np.zeros(TOKENS, bool), np.zeros(TOKENS)
    increment, states = np.full_like(u, np.nan), [u]
    for layer in matrices(2, layers=8).swapaxes(0, 1):
        new = u
        for matrix in layer:
            moved = new + np.sin(1 + (new + new.mean(0)) @ matrix)
            new = np.where(stopped[:, None], new, moved)
        if order:
            new = np.where(stopped[:, None], u + increment, new)
        count += ~stopped
        earlier, increment = increment, np.where(stopped[:, None], increment, new - u)
        u = new
        states.append(u)
        change = np.linalg.norm(increment - earlier, axis=-1)
        measure = change / np.linalg.norm(increment, axis=-1)
        if sample:
            measure = np.full(TOKENS, measure.mean())
        stopped |= measure < tolerance
    return np.stack(states), count


@pytest.mark.parametrize("stops", ["token", "sample"])
@pytest.mark.parametrize("order", [0, 1])
def test_tokens_stop_as_in_a_march_in_numpy(order, stops):
    tolerance = 1.4
    rule = SecondDifference(tolerance, stops=stops, order=order)
    states, evaluations = solved(EQUATION, rule, U0)
    for sample in range(2):
        u, whole = np.asarray(U0[sample]), stops == "sample"
        expected, count = numpy_march(u, tolerance, order=order, sample=whole)
        assert largest(states[:, sample], expected) < 1e-12
        assert np.array_equal(evaluations[sample], count)
    assert 2 < float(np.mean(evaluations)) < 8
    assert len(np.unique(evaluations)) > 1


@pytest.mark.parametrize(
    ("exit", "first"),
    [
        (ide.EstimatedExit(0.0), 2),
        pytest.param(SecondDifference(0.0, hits=2), 3, marks=pytest.mark.heavy),
    ],
)
def test_without_tolerance_all_is_solved_and_with_much_nothing(exit, first):
    full = np.asarray(solved(EQUATION, None, U0)[0])
    states, evaluations = solved(EQUATION, exit, U0)
    assert largest(states, full) < 1e-13
    assert (evaluations == 8).all()
    states, evaluations = solved(EQUATION, eqx.tree_at(lambda e: e.tolerance, exit, 1e9), U0)
    assert (evaluations == first).all()
    assert largest(states[: first + 1], full[: first + 1]) < 1e-13
    increment = full[first] - full[first - 1] if exit.order else 0
    assert largest(states[8], full[first] + (8 - first) * increment) < 1e-12


@pytest.mark.parametrize(
    ("solver", "cost", "constraint"),
    [
        (ide.RK4(), 4, ide.Sphere()),
        # The last of three operators is solved exactly and makes one sub-step.
        pytest.param(ide.Strang(diffrax.Heun()), 3, ide.Free(), marks=pytest.mark.heavy),
    ],
)
def test_a_token_that_has_stopped_stays_at_every_stage(solver, cost, constraint):
    """Of two steps in each interval; the others see it where it is, so that a token alone is
    as one that all others wait for."""
    operators = (*map(Mixing, map(jnp.asarray, matrices(2))), ide.Damping(jnp.full(WIDTH, 0.3)))
    equation = ide.Equation(ide.Tied(operators, 3), constraint, DOMAIN)
    full, _ = solved(equation, None, U0, solver, 2)
    states, evaluations = solved(equation, ide.EstimatedExit(0.0, order=0), U0, solver, 2)
    assert largest(states, full) < 1e-12
    assert np.allclose(evaluations, 6 * cost)
    states, evaluations = solved(equation, ide.EstimatedExit(0.3, order=0), U0, solver, 2)
    states, full = np.asarray(states), np.asarray(full)
    stopped = np.asarray(evaluations) < 2.5 * cost
    assert 0 < stopped.mean() < 1
    assert (np.diff(states[1:], axis=0)[:, stopped] == 0).all()
    assert largest(states[3, ~stopped], full[3, ~stopped]) > 1e-6


CAUSAL = make_equation(intervals=8)


@pytest.mark.parametrize("stops", ["token", "sample"])
def test_no_token_sees_a_later_one_nor_padding(stops):
    exit, equation, u0 = ide.EstimatedExit(0.05, stops=stops), CAUSAL, random_state(2)
    if stops == "sample":
        weights = jnp.asarray(np.arange(TOKENS) < 4, float)
        domain = ide.TokenDomain(DOMAIN.points, weights=weights)
        equation = ide.Equation(CAUSAL.control, ide.Free(), domain)
    other = u0.at[:, 4:].mul(-50.0)
    (states, count), (changed, recount) = (solved(equation, exit, u) for u in (u0, other))
    assert largest(states[:, :, :4], changed[:, :, :4]) < 1e-12
    assert (count[:, :4] == recount[:, :4]).all()
    assert 2 <= float(count.min()) < 8 and (len(np.unique(count)) > 1 or stops == "sample")


class Counting(ide.AbstractOperator):
    """`du/dt = -u`, which counts its evaluations."""

    rate: jax.Array
    pointwise = True

    def __call__(self, u, domain):
        io_callback(COUNTED.append, None, u[0, 0, 0], ordered=True)
        return -self.rate * u


COUNTED: list = []


def test_nothing_is_evaluated_once_all_have_stopped():
    control = ide.Tied((Counting(jnp.ones(())),), 8)
    equation = ide.Equation(control, ide.Free(), DOMAIN)
    steps = ide.Discretization(diffrax.Euler(), exit=SecondDifference(1e9, hits=2))
    COUNTED.clear()
    jax.block_until_ready(steps.solve(equation, U0).u1)
    jax.effects_barrier()
    assert len(COUNTED) == 3


@pytest.mark.heavy
def test_the_gradient_goes_through_the_steps_that_were_made():
    exit = SecondDifference(1.3, order=1)
    direction = random_state(2, width=WIDTH, seed=7)

    @jax.jit
    def loss(x):
        states, _ = solved(EQUATION, exit, U0 + x * direction)
        return jnp.mean(states[-1] ** 2)

    h = 1e-6
    expected = float(loss(h) - loss(-h)) / (2 * h)
    assert float(jax.grad(loss)(0.0)) == pytest.approx(expected, rel=1e-6)


@eqx.filter_jit
def estimated(states, end):
    """The estimates of both orders, three steps before the end, and what they estimate."""
    earlier, increment = jnp.diff(states, axis=0)
    progress = ide.Progress(states[-1], increment, earlier, jnp.array(3.0), read_out)
    exits = [ide.EstimatedExit(0.0, order=order) for order in (0, 1)]
    ends = [read_out(progress.end(order)) for order in (0, 1)]
    return (
        jnp.array([jnp.mean(exit.measure(progress)) for exit in exits]),
        jnp.array([jnp.mean(divergence(read_out(end), x)) for x in ends]),
    )


def test_the_estimate_tends_to_the_effect_of_the_steps_that_are_left():
    """Of three steps left. The effect is of order 2 (q + 1), since a divergence is quadratic;
    the estimate is right but for a part that halves with the step."""
    make = lambda key: make_block(key, std=0.1)[1:]  # noqa: E731
    control = eqx.filter_jit(ide.Chebyshev.build)(make, 4, key=jax.random.key(1))
    effects, errors = [], []
    for steps in (512, 1024, 2048):
        fine = eqx.filter_jit(control.resample)(steps)
        fine = ide.Equation(fine, ide.Free(), DOMAIN)
        states, _ = solved(fine, None, random_state(2), diffrax.Euler())
        states = np.asarray(states)
        estimate, effect = map(np.asarray, estimated(states[-6:-3], states[-1]))
        effects.append(effect)
        errors.append(np.abs(estimate / effect - 1))
    slopes = np.log2(np.array(effects[:-1]) / np.array(effects[1:]))
    assert slopes[-1] == pytest.approx([2, 4], abs=0.15)
    assert np.all(errors[-1] < 0.1)
    assert errors[0] / errors[1] == pytest.approx([2, 2], abs=0.5)
    assert errors[1] / errors[2] == pytest.approx([2, 2], abs=0.5)


def test_differences_of_outputs():
    random = np.random.default_rng(0)
    expected, given = random.normal(size=(2, 3, 5, 4))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (expected, given))
    found = eqx.filter_jit(divergence)(expected, given)
    assert largest(found, (p * np.log(p / q)).sum(-1)) < 1e-12
    difference = jax.jit(ide.relative_difference)
    size = np.sqrt((expected**2).sum((1, 2)) / 5)
    change = np.sqrt(((expected - given) ** 2).sum(-1))
    assert largest(difference(expected, given), change / size[:, None]) < 1e-12
    one = difference(expected[..., 0], given[..., 0])
    assert largest(one, difference(expected[..., :1], given[..., :1])) == 0
