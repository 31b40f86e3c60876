"""What the package asks of a scheme, of one of a user too: whether it can make a solve, from
what it starts, what it draws, and what it has learned."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ide_transformer as ide
from ide_transformer import contrib, solvers, training
from tests.helpers import largest
from tests.models import examples
from tests.solvers.linear_problem import initial_state, layered_equation
from tests.training import stub
from tests.training.mine import Pushed


EQUATION = layered_equation(1, constraint=ide.Sphere())


def test_a_scheme_refuses_a_solve():
    """Also inside of another one, and with steps that are not known before."""
    plan = r"Pushed: .*steps=3, horizon=3\.0, operators=1, continuous=False"
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    for solver, options, message in (
        (solvers.Residual(Pushed()), {}, plan),
        (Pushed(), {"stepsize_controller": controller}, r"Pushed: .*steps=None"),
    ):
        with pytest.raises(ide.InputError, match=message):
            ide.solve(EQUATION, initial_state(), solver=solver, **options)


def test_a_scheme_starts_from_a_velocity():
    solver, equation = Pushed(), EQUATION
    constraint = equation.constraint(0.0)
    u = u0 = constraint.project(initial_state())
    solvers.check_start(solver, start := contrib.InitialVelocity(jnp.ones_like(u0)))
    for matrix in np.repeat(np.asarray(equation.control.blocks[0].matrix), 2, axis=0):
        u = constraint.project(u + 0.5 * u @ matrix + 0.5 * 0.5)
    solution = ide.solve(equation, u0, solver=solver, steps_per_interval=2, args=start)
    assert largest(solution.u1, u) < 1e-14


def test_a_scheme_that_starts_from_the_state_alone_refuses_a_velocity():
    model = examples.language_model(velocity=True, solver=solvers.Residual(ide.RK4()))
    with pytest.raises(ide.InputError, match=r"Residual .* InitialVelocity"):
        model.solve(np.zeros(3, int))


def test_a_scheme_of_a_configuration_draws_and_is_logged():
    """Also inside of another one."""
    with stub.known():
        model = stub.model_of(stub.config("solver.kind=residual(tests.training.mine:Pushed)"))
    task = stub.Stub(4)
    outputs = jax.jit(lambda key: model(task.batch(0, 1, 0).inputs, key=key))
    assert model.random and largest(*map(outputs, jax.random.split(jax.random.key(0)))) > 1e-3
    rule = optax.sgd(0.1)
    state, static = training.initial_state(model, rule, jax.random.key(0))
    step = training.make_train_step(rule, static, task.loss)
    _, metrics = jax.eval_shape(step, state, task.batch(0, 2, 0))
    assert [x for x in metrics if x.startswith("solver")] == ["solver.solver.push"]
