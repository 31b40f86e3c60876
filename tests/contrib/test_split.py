"""Equations whose linear part is exact: against solutions in closed form, on any grid."""

import json
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import ide_transformer as ide
from ide_transformer import contrib, training
from ide_transformer.testing import check_operator
from tests.helpers import ROOT, built, drawn, largest, observed_order
from tests.running import run_here
from tests.tasks.files import write_trajectories
from tests.training import stub


TAU = 2 * np.pi
# The waves of a function in each dimension.
WAVES = {1: [(1,), (3,), (7,)], 2: [(1, 0), (2, -3), (0, 4)]}
COEFFICIENTS = dict(damping=0.3, advection=0.7, diffusion=-1e-3)
COEFFICIENTS |= dict(dispersion=2e-4, hyper_diffusion=1e-6)


def growth_rate(k):
    """The rate of a wave by all `COEFFICIENTS`: its real and its imaginary part."""
    real = -0.3 + (1e-3 * k**2 - 1e-6 * k**4).sum()
    return real - 1j * (0.7 * k + 2e-4 * k**3).sum()


def waves(points, rate, time=0.0):
    """`Σ_n A_n cos(k_n·x + φ_n)`, after a time, at the points of a torus: `[tokens, 1]`."""
    x = np.asarray(points)
    u = 0.4 * np.exp(rate(np.zeros(x.shape[1])) * time).real
    for wave, n in enumerate(WAVES[x.shape[1]]):
        k = TAU * np.array(n)
        u = u + np.real(np.exp(1j * (x @ k + wave) + rate(k) * time)) / (1 + wave)
    return jnp.asarray(u)[:, None]


@eqx.filter_jit
def solved(block, u, domain, solver, time, steps=1):
    control = ide.Tied(block, layers=steps, interval_length=time / steps)
    return ide.solve(ide.Equation(control, ide.Free(), domain), u, solver=solver).u1


@pytest.mark.parametrize(("grid", "time"), [((33,), 5.0), ((12, 15), 0.5)])
def test_the_linear_part_is_exact_over_any_time_on_any_grid(grid, time):
    operator = contrib.ConstantCoefficients(1, dimension=len(grid), **COEFFICIENTS)
    domain = ide.TokenDomain.periodic(grid)
    expected = waves(domain.points, growth_rate, time)
    start = waves(domain.points, growth_rate)
    end = solved((operator,), start, domain, ide.Strang(), time)
    assert largest(end, expected) < 1e-10 * (1 + largest(expected, 0))


def test_coefficients_of_features_and_axes():
    domain = ide.TokenDomain.periodic((12, 15))
    speeds, rates = ((0.3, -0.2), (0.0, 0.5)), (0.01, 0.02)
    options = dict(dimension=2, advection=speeds, diffusion=rates)
    operator = contrib.ConstantCoefficients(2, **options)

    def states(time):
        pairs = zip(speeds, rates, strict=True)
        growth = [lambda k, c=c, d=d: -1j * (k @ c) - d * (k**2).sum() for c, d in pairs]
        return jnp.concatenate([waves(domain.points, x, time) for x in growth], -1)

    end = solved((operator,), states(0.0), domain, ide.Strang(), 0.7)
    assert largest(end, states(0.7)) < 1e-10


def test_learned_coefficients_are_the_weights_and_never_grow():
    coefficients = dict(diffusion=0.02, dispersion=3e-4, hyper_diffusion=1e-6)
    options = dict(learned=("diffusion", "dispersion"), spacing=1 / 80)
    operator = contrib.ConstantCoefficients(1, **coefficients, **options)
    assert {*operator.weights} == {"diffusion", "dispersion"}
    for name, value in coefficients.items():
        assert operator.coefficients[name] == pytest.approx(value)
    # Whatever the weights are.
    moved = jax.tree.map(lambda w: w - 30.0, operator)
    assert 0 < moved.coefficients["diffusion"].item() < 1e-10
    fixed = contrib.ConstantCoefficients(1, **coefficients)
    assert not jax.tree.leaves(eqx.filter(fixed, eqx.is_array))
    assert fixed.dissipative and not contrib.ConstantCoefficients(1, advection=1.0).dissipative


def test_what_would_grow_is_refused():
    options = dict(diffusion=-1.0), dict(damping=-0.1), dict(advection=(1.0, 2.0))
    for wrong in (*options, dict(diffusion=0.0, learned=("diffusion",))):
        with pytest.raises(ide.InputError, match=f"{next(iter(wrong))}="):
            contrib.ConstantCoefficients(1, **wrong)


def local_flux(features=1, dimension=1, **options):
    options = dict(spacing=1 / 16, hidden=6, dimension=dimension) | options
    return built(lambda: contrib.LocalFlux(features, key=jax.random.key(0), **options))


def test_a_flux_keeps_the_mean_and_constant_states():
    """On points that are not where the neighbours are; the last state is constant."""
    domain, flux = ide.TokenDomain.periodic((8, 12)), local_flux(2, 2, gated=True)
    u = drawn((3, domain.num_tokens, 2), 1).at[2].set(1.0)
    rate = eqx.filter_jit(flux)(u, domain)
    assert largest(rate, 0) > 0.1
    assert largest(rate.mean(axis=1), 0) < 1e-13 * largest(rate, 0)
    assert largest(rate[2], 0) < 1e-12


def test_a_flux_is_the_same_operator_on_every_grid():
    flux = local_flux(spacing=1 / 16)

    def rate_at_zero(points):
        domain = ide.TokenDomain.periodic(points)
        x = domain.points
        u = jnp.sin(TAU * x) + jnp.cos(2 * TAU * x)
        return eqx.filter_jit(flux)(u, domain)[0]

    exact = rate_at_zero(16)
    assert largest(rate_at_zero(64), exact) < 1e-12
    order = observed_order(lambda n: largest(rate_at_zero(n), exact), (72, 152))
    assert abs(order - 4) < 0.15


def test_a_flux_is_a_divergence_of_second_order():
    """Two components in the plane, by weights set by hand: F_1 = (u_2, 0), F_2 = (0, 2 u_1)."""
    errors = []
    for points in (32, 64):
        flux = local_flux(2, 2, spacing=1 / points, depth=1, hidden=2, activation=jnp.asarray)
        centre = jnp.zeros((3, 3, 2, 2)).at[1, 1].set(jnp.eye(2))
        # The fluxes along the first axis, then those along the second.
        means = jnp.zeros((2, 2, 2, 4)).at[..., 1, 0].set(0.25).at[..., 0, 3].set(0.5)
        flux = eqx.tree_at(lambda f: (f.kernels, f.output), flux, ((centre,), means))
        domain = ide.TokenDomain.periodic((points, points))
        x, y = TAU * domain.points.T
        u = jnp.stack([jnp.sin(x) * jnp.cos(y), jnp.sin(x + 2 * y)], -1)
        rate = eqx.filter_jit(flux)(u, domain)
        exact = jnp.stack([-jnp.cos(x + 2 * y), 2 * jnp.sin(x) * jnp.sin(y)], -1)
        errors.append(largest(rate, TAU * exact))
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.15


def test_the_parts_do_what_every_operator_does():
    circle = ide.TokenDomain.periodic(6)
    coefficients = dict(diffusion=0.1, dispersion=0.01, learned=("diffusion",))
    check_operator(contrib.ConstantCoefficients(4, **coefficients), 4, circle)
    check_operator(local_flux(4), 4, circle, options={"spacing": 0.1})


def heat(k):
    return -0.02 * (k**2).sum()


def test_a_model_takes_its_depth_from_the_data_and_solves_other_times(tmp_path):
    """The data are pairs of states of the heat equation, which are Δt = 0.1 apart."""
    x = np.arange(24)[:, None] / 24
    states = np.stack([waves(x, heat, 0.1 * n)[:, 0] for n in range(4)])
    shifted = np.stack([np.roll(states, n, axis=1) for n in range(24)]).astype(np.float32)
    np.savez(tmp_path / "heat.npz", trajectories=shifted, times=0.1 * np.arange(4))
    tree = yaml.safe_load((ROOT / "configs/emulators/split.yaml").read_text())
    tree["data"] = {"name": "trajectories", "path": str(tmp_path / "heat.npz")}
    tree["model"] |= {"context": 24, "hidden": 4, "std": 1e-8}
    tree["model"]["operators"][1]["options"]["spacing"] = 0.125
    config = stub.read_config(tree)
    task = training.build_task(config)
    model = built(lambda: training.build_model(config, task, jax.random.key(0)), std=1e-8)
    u = task.batch(0, 4, 0).inputs
    assert model.control.horizon == pytest.approx(0.1) and model.layers == 2
    # The diffusion is known, so nothing is left to learn.
    times = np.array([0.1, 0.2, 0.1, 0.2])
    decay = np.exp(-0.02 * (TAU * np.arange(13)) ** 2 * times[:, None])
    expected = np.fft.irfft(decay * np.fft.rfft(u), 24)
    assert largest(eqx.filter_jit(model)(ide.Timed(u, times)), expected) < 1e-5


@pytest.mark.heavy
def test_a_run_on_own_trajectories_and_its_baseline_are_rolled_out(
    tmp_path, monkeypatch, capsys, no_figures
):
    monkeypatch.chdir(tmp_path)
    write_trajectories(tmp_path / "trajectories.nc", samples=20, points=64)
    network = "resnet:hidden_channels=2:num_blocks=1"
    small = "training.steps=20", "training.batch_size=4", "optimizer.warmup=1"
    printed = run_here(capsys, "train", "emulators/own", *small, "--baseline", network)
    rows = json.loads(Path("runs/own/baselines.json").read_text())
    assert [row["model"] for row in rows] == ["own", network]
    for row in rows:
        assert row["steps"] == 20 and f"{row['test_loss']:.4g}" in printed
        test_loss = training.evaluate_loss(training.load_model(row["run"]), part="test")["loss"]
        assert test_loss == pytest.approx(row["test_loss"], rel=1e-5)
        assert "0.6 " in run_here(capsys, "rollout", row["run"], "--steps", "3")


def test_the_linear_part_acts_on_the_function_and_not_on_its_deviation():
    """Means, and other statistics of the outputs, change nothing of an exact part. The function
    stays positive, as its deviation from the mean would not."""
    damping = 0.9
    linear = contrib.ConstantCoefficients(1, damping=damping, diffusion=1e-3)
    parts = dict(control=ide.Tied((linear,), 1), constraint=ide.Nonnegative())
    units = dict(statistics=((3.0, 2.0),), output_statistics=((7.0, 5.0),))
    model = contrib.SplitModel(16, 1, **parts, **units, solver=diffrax.Dopri8())
    wave = jnp.sin(TAU * model.domain.points[:, 0])
    expected = np.exp(-damping) * (2 + np.exp(-1e-3 * TAU**2) * wave)
    assert largest(eqx.filter_jit(model)(2 + wave), expected) < 1e-7
