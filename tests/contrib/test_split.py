"""Equations whose linear part is exact: against solutions in closed form, on any grid."""

from types import SimpleNamespace

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import emulators
import ide_transformer as ide
from ide_transformer import contrib, training
from ide_transformer.compare.convergence import march
from ide_transformer.testing import check_operator
from tests.helpers import ROOT, built, drawn, largest, observed_order


TAU = 2 * np.pi
# The waves of a function in each dimension, and the coefficients of an equation with its rate
# of a wave: the real and the imaginary part.
WAVES = {1: [(1,), (3,), (7,)], 2: [(1, 0), (2, -3), (0, 4)]}
EQUATIONS = {
    "advection": (dict(advection=0.7), lambda k: -0.7j * k.sum()),
    "diffusion": (dict(diffusion=0.01), lambda k: -0.01 * (k**2).sum()),
    "dispersion": (dict(dispersion=2e-4), lambda k: -2e-4j * (k**3).sum()),
    "hyper_diffusion": (dict(hyper_diffusion=1e-6), lambda k: -1e-6 * (k**4).sum()),
    "all": (
        dict(
            damping=0.3, advection=0.7, diffusion=-1e-3, dispersion=2e-4, hyper_diffusion=1e-6
        ),
        lambda k: -0.3 + (1e-3 * k**2 - 1e-6 * k**4).sum() - 1j * (0.7 * k + 2e-4 * k**3).sum(),
    ),
}
GRIDS = {1: (16, 33), 2: ((12, 15), (10, 12))}


def waves(points, rate, time=0.0):
    """`Σ_n A_n cos(k_n·x + φ_n)`, after a time, at the points of a torus: `[tokens, 1]`."""
    x = np.asarray(points)
    u = 0.4 * np.exp(rate(np.zeros(x.shape[1])) * time).real
    for number, n in enumerate(WAVES[x.shape[1]]):
        k = TAU * np.array(n)
        u = u + np.real(np.exp(1j * (x @ k + number) + rate(k) * time)) / (1 + number)
    return jnp.asarray(u)[:, None]


@eqx.filter_jit
def solved(block, u, domain, solver, time, steps=1):
    control = ide.Tied(block, layers=steps, interval_length=time / steps)
    return ide.solve(ide.Equation(control, ide.Free(), domain), u, solver=solver).u1


SOLVERS = ide.ExponentialEuler(), ide.ETDAB2(), ide.LieTrotter(), ide.Strang()


@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("name", EQUATIONS)
def test_the_linear_part_is_exact_over_any_time_on_any_grid(name, dimension):
    coefficients, rate = EQUATIONS[name]
    operator = contrib.ConstantCoefficients(1, dimension=dimension, **coefficients)
    first, last = GRIDS[dimension]
    runs = [(ide.ETDRK4(), first, 0.02), (ide.Strang(), last, 5.0)]
    if name != "all":
        runs = [runs[dimension - 1]]
    elif dimension == 1:
        runs += [(solver, first, 0.5) for solver in SOLVERS]
    for solver, grid, time in runs:
        domain = ide.TokenDomain.periodic(grid)
        expected = waves(domain.points, rate, time)
        found = solved((operator,), waves(domain.points, rate), domain, solver, time)
        assert largest(found, expected) < 1e-10 * (1 + largest(expected, 0))


def test_coefficients_of_features_and_axes():
    domain = ide.TokenDomain.periodic((12, 15))
    operator = contrib.ConstantCoefficients(
        2, dimension=2, advection=((0.3, -0.2), (0.0, 0.5)), diffusion=(0.01, 0.02)
    )
    rates = [
        lambda k: -1j * (k @ [0.3, -0.2]) - 0.01 * (k**2).sum(),
        lambda k: -1j * (k @ [0.0, 0.5]) - 0.02 * (k**2).sum(),
    ]
    u, expected = (
        jnp.concatenate([waves(domain.points, x, t) for x in rates], -1) for t in (0, 0.7)
    )
    assert largest(solved((operator,), u, domain, ide.Strang(), 0.7), expected) < 1e-10


def test_learned_coefficients_are_the_weights_and_never_grow():
    given = dict(diffusion=0.02, dispersion=3e-4, hyper_diffusion=1e-6)
    operator = contrib.ConstantCoefficients(
        1, **given, learned=("diffusion", "dispersion"), spacing=1 / 80
    )
    assert {*operator.weights} == {"diffusion", "dispersion"}
    for name, value in given.items():
        assert operator.coefficients[name] == pytest.approx(value)
    # Whatever the weights are.
    moved = jax.tree.map(lambda w: w - 30.0, operator)
    assert 0 < moved.coefficients["diffusion"].item() < 1e-10
    known = contrib.ConstantCoefficients(1, **given)
    assert not jax.tree.leaves(eqx.filter(known, eqx.is_array))
    assert known.dissipative and not contrib.ConstantCoefficients(1, advection=1.0).dissipative


def test_what_would_grow_is_refused():
    for options, said in (
        (dict(diffusion=-1.0), "diffusion=-1 without hyper_diffusion"),
        (dict(damping=-0.1), "damping=-0.1 lets waves grow"),
        (dict(learned=("diffusion",)), "diffusion=0 is learned as e\\^w"),
        (dict(advection=(1.0, 2.0)), "advection=.* for 1 features and 1 axes"),
    ):
        with pytest.raises(ide.InputError, match=said):
            contrib.ConstantCoefficients(1, **options)


def local_flux(features=1, dimension=1, **options):
    options = dict(spacing=1 / 16, hidden=6, dimension=dimension) | options
    return built(lambda: contrib.LocalFlux(features, key=jax.random.key(0), **options))


@pytest.mark.parametrize(
    "grid", [48, 33, pytest.param((8, 12), id="plane"), pytest.param((5, 6, 4), id="space")]
)
def test_a_flux_keeps_the_mean_and_constant_states(grid):
    """Also where the neighbours are between points."""
    dimension = len(grid) if isinstance(grid, tuple) else 1
    domain, flux = ide.TokenDomain.periodic(grid), local_flux(2, dimension, gated=True)
    u = drawn((3, domain.num_tokens, 2), 1)
    rate = eqx.filter_jit(flux)(u, domain)
    assert largest(rate, 0) > 0.1
    assert largest(rate.mean(axis=1), 0) < 1e-13 * largest(rate, 0)
    assert largest(eqx.filter_jit(flux)(jnp.ones_like(u), domain), 0) < 1e-12


def test_a_flux_is_the_same_operator_on_every_grid():
    flux = local_flux(spacing=1 / 16)

    def rate_at_zero(points):
        domain = ide.TokenDomain.periodic(points)
        x = domain.points
        u = jnp.sin(TAU * x) + jnp.cos(2 * TAU * x)
        return eqx.filter_jit(flux)(u, domain)[0]

    exact = rate_at_zero(16)
    assert largest(rate_at_zero(64), exact) < 1e-12
    order = observed_order(lambda n: largest(rate_at_zero(n), exact), (72, 152, 312))
    assert abs(order - 4) < 0.15


def test_a_flux_is_a_divergence_of_second_order():
    """F = u in the first of two dimensions, by a weight set by hand."""
    errors = []
    for points in (32, 64):
        flux = local_flux(1, 2, spacing=1 / points, depth=1, hidden=1, activation=jnp.asarray)
        centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
        mean = jnp.zeros((2, 2, 1, 2)).at[..., 0].set(0.25)
        flux = eqx.tree_at(lambda f: (f.kernels, f.output), flux, ((centre,), mean))
        domain = ide.TokenDomain.periodic((points, points))
        x, y = TAU * domain.points.T
        found = eqx.filter_jit(flux)((jnp.sin(x) * jnp.cos(y))[:, None], domain)[:, 0]
        errors.append(largest(found, -TAU * jnp.cos(x) * jnp.cos(y)))
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.15


def test_orders_on_waves_that_damp_and_disperse():
    """Korteweg and de Vries's equation with hyper-diffusion, `L` much stiffer than `N`."""
    domain = ide.TokenDomain.periodic(32)
    linear = contrib.ConstantCoefficients(1, dispersion=1e-3, hyper_diffusion=1e-5)
    control = ide.Tied((linear, Transport()), 1, interval_length=0.2)
    equation = ide.Equation(control, ide.Free(), domain)
    u = jnp.sin(TAU * domain.points)

    def end(solver, steps):
        return march(equation, u, solver, jnp.asarray(steps))

    exact = end(ide.ETDRK4(), 800)
    for solver, order, steps in ((ide.ETDRK4(), 4, (40, 80)), (ide.ETDAB2(), 2, (100, 200))):
        found = observed_order(lambda n, solver=solver: largest(end(solver, n), exact), steps)
        assert abs(found - order) < 0.15, solver


class Transport(ide.AbstractOperator):
    """`u_t = -(u²/2)_x` on a circle."""

    def __call__(self, u, domain):
        k = 2j * jnp.pi * jnp.arange(domain.num_tokens // 2 + 1)[:, None]
        spectrum = jnp.where(abs(k) < TAU * domain.num_tokens / 3, -k / 2, 0)
        return jnp.fft.irfft(spectrum * jnp.fft.rfft(u**2, axis=0), domain.num_tokens, axis=0)


def test_the_parts_do_what_every_operator_does():
    circle = ide.TokenDomain.periodic(6)
    linear = contrib.ConstantCoefficients(
        4, diffusion=0.1, dispersion=0.01, learned=("diffusion",)
    )
    check_operator(linear, 4, circle)
    check_operator(local_flux(4), 4, circle, options={"spacing": 0.1})


def heat(k):
    return -0.02 * (k**2).sum()


@pytest.fixture
def config(tmp_path):
    """Pairs of states of the heat equation, which are Δt = 0.1 apart."""
    x = np.arange(24)[:, None] / 24
    states = np.stack([waves(x, heat, 0.1 * n)[:, 0] for n in range(4)])
    shifted = np.stack([np.roll(states, n, axis=1) for n in range(24)]).astype(np.float32)
    np.savez(tmp_path / "heat.npz", trajectories=shifted, times=0.1 * np.arange(4))
    tree = yaml.safe_load((ROOT / "configs/emulators/split.yaml").read_text())
    tree["data"] = {"name": "trajectories", "path": str(tmp_path / "heat.npz")}
    tree["model"] |= {"context": 24, "hidden": 4, "std": 1e-8}
    tree["model"]["operators"][1]["options"]["spacing"] = 0.125
    (tmp_path / "heat.yaml").write_text(yaml.safe_dump(tree))
    return training.load_config(tmp_path / "heat.yaml")


def test_a_model_takes_its_depth_from_the_data_and_solves_other_times(config):
    task = training.build_task(config)
    model = training.build_model(config, task, jax.random.key(0))
    batch = task.batch(0, 4, 0)
    assert model.control.horizon == pytest.approx(0.1) and model.layers == 2
    # The diffusion is known, so nothing is left to learn.
    apply = eqx.filter_jit(model)
    assert largest(apply(batch.inputs), batch.targets) < 1e-5
    # The time of another step, of each sample.
    again = apply(apply(batch.inputs))
    assert largest(apply(ide.Timed(batch.inputs, np.full(4, 0.2))), again) < 1e-5
    both = apply(ide.Timed(batch.inputs, np.array([0.1, 0.2, 0.1, 0.2])))
    assert largest(both[1::2], again[1::2]) < 1e-4


def test_the_state_of_a_model_is_the_function(config):
    wider = config.changed("model", width=2)
    with pytest.raises(ide.InputError, match=r"features=2.* write model\.width=1"):
        training.build_model(wider, training.build_task(config), jax.random.key(0))


def test_a_network_stands_beside_the_same_linear_part(config):
    pytest.importorskip("pdequinox", reason="the extra emulators is not installed")
    network = {"kind": "grid_network", "options": {"scale": 2.0, "options": {"num_blocks": 1}}}
    operators = (config.model.operators[0], network)
    config = config.changed("model", operators=operators)
    task = training.build_task(config)
    model = training.build_model(config, task, jax.random.key(0))
    _, found = model.control(0.0)
    u, domain = drawn((2, 24, 1), 3), model.domain
    by_hand = eqx.filter_jit(jax.vmap(found.rate.network))(jnp.moveaxis(u, -1, 1))
    rate = eqx.filter_jit(found)(u, domain)
    assert largest(rate, 2 * jnp.moveaxis(by_hand, 1, -1)) < 1e-6
    assert np.isfinite(eqx.filter_jit(model)(task.batch(0, 2, 0).inputs)).all()


@pytest.mark.parametrize("name, dimension", [("split_known", 1), ("split_2d", 2)])
def test_the_linear_part_of_a_scenario_is_that_of_its_solver(name, dimension):
    exponax = pytest.importorskip("exponax", reason="the solver of the scenarios")
    gammas = (-0.1, -4.0, 1.5, -14.0, -9.0)
    scenario = SimpleNamespace(num_points=40, num_spatial_dims=dimension, gammas=gammas)
    config = training.load_config(ROOT / f"configs/emulators/{name}.yaml")
    known, _ = emulators.with_linear_part(config, scenario).model.operators
    operator = contrib.ConstantCoefficients(1, **known["options"])
    domain = ide.TokenDomain.periodic((40,) * dimension)
    x = np.asarray(domain.points).reshape(-1, dimension)
    u = np.sin(2 * np.pi * x).sum(axis=1) + np.cos(2 * np.pi * (3 * x[:, 0] + x[:, -1]))
    stepper = exponax.stepper.generic.DifficultyLinearStepper(
        dimension, 40, linear_difficulties=gammas
    )
    expected = stepper(jnp.asarray(u.reshape(1, *(40,) * dimension))).ravel()
    found = operator.flow(jnp.asarray(u)[:, None], domain, 1.0)[:, 0]
    assert largest(found, expected) < 1e-4
    assert float(jnp.abs(expected - u).max()) > 0.1


@pytest.mark.parametrize("damping, constraint", [(0.9, ide.Free()), (0.0, ide.Nonnegative())])
def test_the_linear_part_acts_on_the_function_and_not_on_its_deviation(damping, constraint):
    """Means, and other statistics of the outputs, change nothing of an exact part."""
    linear = contrib.ConstantCoefficients(1, damping=damping, diffusion=1e-3)
    model = contrib.SplitModel(
        16,
        1,
        control=ide.Tied((linear,), 1),
        constraint=constraint,
        mesh=ide.Mesh(solver=diffrax.Dopri8()),
        statistics=((3.0, 2.0),),
        output_statistics=((7.0, 5.0),),
    )
    wave = jnp.sin(TAU * model.domain.points[:, 0])
    expected = np.exp(-damping) * (2 + np.exp(-1e-3 * TAU**2) * wave)
    assert largest(eqx.filter_jit(model)(2 + wave), expected) < 1e-7
