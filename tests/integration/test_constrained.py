"""`solve` keeps the state on the constraint of its equation."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import project
from helpers import WIDTH, fast_first, largest, make_equation, random_state

import ide_transformer as ide


SPHERE = make_equation(constraint=ide.Sphere(), normalization=ide.Free())
U0 = project(ide.Sphere(), random_state(2))


def residual(solver, **options):
    solution = ide.solve(SPHERE, U0, solver=solver, **options)
    return float(solution.stats["constraint_residual"])


@pytest.mark.parametrize(
    "solver",
    fast_first(
        2,
        [
            ide.Strang(),
            ide.Leapfrog(),
            ide.LieTrotter(),
            ide.RK4(),
            ide.AlgebraicallyReversible(),
        ],
    ),
)
def test_every_scheme_ends_on_the_constraint(solver):
    assert residual(solver, steps_per_interval=2) < 1e-14
    asked = ide.solve(SPHERE, U0, solver=ide.projected(solver), steps_per_interval=2)
    found = ide.solve(SPHERE, U0, solver=solver, steps_per_interval=2)
    assert largest(found.u1, asked.u1) == 0


@pytest.mark.heavy
def test_adaptive_steps_end_on_the_constraint():
    tight = diffrax.PIDController(rtol=1e-6, atol=1e-6)
    assert residual(diffrax.Tsit5(), stepsize_controller=tight) < 1e-14


def test_the_plain_form_can_still_be_said():
    """On tangential fields alone the state leaves the sphere by the error of the scheme."""
    plain = ide.Tangential(ide.RK4())
    far, near = residual(plain), residual(plain, steps_per_interval=8)
    assert 0.1 > far > 1000 * near > 0
    twice = ide.projected(ide.Projected(ide.RK4()))
    assert type(twice.solver) is ide.RK4


def test_a_free_equation_is_solved_as_it_is():
    free, u0 = make_equation(), random_state()
    for solver in (ide.RK4(), ide.Tangential(ide.RK4())):
        assert largest(ide.solve(free, u0, solver=solver).u1, by_hand(free, u0)) < 1e-14


@eqx.filter_jit
def by_hand(equation, u0):
    for index in range(3):
        terms = equation.terms_of(index)
        u0 = ide.single_step(ide.RK4(), terms, float(index), index + 1.0, u0)
    return u0


def test_the_sphere_projects_in_the_metric_of_its_gain():
    """With a gain that varies over features the nearest state of S1 is the one nearest in
    `mean_y (v/γ)²`, not in the Euclidean distance."""
    draw = np.random.default_rng(0)
    gain, v = jnp.asarray(draw.uniform(0.5, 3, WIDTH)), jnp.asarray(draw.normal(size=WIDTH))
    sphere = ide.Sphere(gain, jnp.full(WIDTH, 0.3))
    nearest = np.asarray(project(sphere, v))
    others = np.asarray(project(sphere, draw.normal(size=(2000, WIDTH)) + nearest))

    def distances(metric):
        gaps = np.linalg.norm((others - np.asarray(v)) / metric, axis=-1)
        return np.min(gaps) - np.linalg.norm((nearest - np.asarray(v)) / metric)

    assert distances(np.asarray(gain)) > 0

    @jax.jit
    def euclidean(u):
        return jnp.linalg.norm(sphere.project(u) - v)

    downhill = nearest - 0.1 * np.asarray(jax.jit(jax.grad(euclidean))(nearest))
    assert euclidean(downhill) < euclidean(nearest) - 1e-3


def test_a_constant_token_has_no_projection():
    constant = jnp.asarray(np.ones((2, 6, WIDTH)))
    with pytest.raises(ide.InputError, match=r"Sphere: a token of equal features.*eps=1e-5"):
        ide.Sphere().project(constant)
    assert np.isfinite(project(ide.Sphere(eps=1e-5), constant)).all()
    with pytest.raises(RuntimeError, match="If a token is constant, give the constraint eps"):
        ide.solve(SPHERE, constant, solver=ide.RK4())
    failed = jax.jit(lambda u: ide.solve(SPHERE, u, solver=ide.RK4(), throw=False))(constant)
    assert not failed.succeeded
