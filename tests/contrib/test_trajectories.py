"""Tests of emulators on trajectories: against the solver that made them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import emulators
from commands import trajectories
from ide_transformer import training
from tests.helpers import ROOT


exponax = pytest.importorskip("exponax", reason="the solver of the scenarios")


@pytest.fixture(autouse=True)
def as_exponax_is_written():
    with jax.numpy_rank_promotion("allow"):
        yield


class Burgers(eqx.Module):
    """A scenario, with the fields and methods that APEBench gives one."""

    num_points: int = 64
    num_spatial_dims: int = 1
    gammas: tuple[float, ...] = (0.0, 0.0, 1.5, 0.0, 0.0)
    convection_delta: float = -1.5
    coarse_proportion: float = 0.5
    test_temporal_horizon: int = 20

    @property
    def num_channels(self):
        return self.num_spatial_dims

    def solver(self, share):
        options = dict(linear_difficulties=tuple(share * x for x in self.gammas))
        options |= dict(convection_difficulty=-share * self.convection_delta, conservative=True)
        stepper = exponax.stepper.generic.DifficultyConvectionStepper
        return stepper(self.num_spatial_dims, self.num_points, **options)

    def get_ref_stepper(self):
        return self.solver(1.0)

    def get_coarse_stepper(self):
        return self.solver(self.coarse_proportion)

    def get_test_data(self):
        x = jnp.linspace(0, 2 * jnp.pi, self.num_points, endpoint=False)
        start = jnp.stack([jnp.sin(x), jnp.cos(2 * x) - 0.5 * jnp.sin(x)])[:, None]
        if self.num_spatial_dims == 2:
            velocities = jnp.stack([jnp.cos(x) + 0.3, jnp.sin(2 * x)])
            start = start[..., None] * velocities[:, None]
        stepper, steps = self.get_ref_stepper(), self.test_temporal_horizon
        return jax.vmap(exponax.rollout(stepper, steps, include_init=True))(start)


# With derivatives of every order in the plane.
LINEAR = [
    Burgers(convection_delta=0.0),
    Burgers(16, 2, (-0.02, -1.0, 1.5, -14.0, -9.0), convection_delta=0.0),
]


@pytest.mark.parametrize("scenario", LINEAR, ids=["line", "plane"])
def test_a_split_emulator_of_a_linear_equation_is_exact_in_steps_of_any_duration(scenario):
    channels = scenario.num_channels
    changes = ["model.operators=[constant_coefficients]", f"model.width={channels}"]
    config = training.load_config(ROOT / "configs/emulators/split_known.yaml", changes)
    exact_config = emulators.with_linear_part(config, scenario)
    emulator = emulators.emulator(
        exact_config,
        "",
        scenario.num_spatial_dims,
        scenario.num_points,
        channels,
        activation=None,
        key=jax.random.key(0),
    )
    data = scenario.get_test_data()
    errors = trajectories.errors_over(emulator, scenario, data, 0.5)
    assert max(errors) < 1e-4
    assert trajectories.errors_over(lambda u: u, scenario, data, 0.5) == []


@pytest.mark.parametrize("dimension", [1, 2])
def test_the_statistics_of_the_solver_are_the_truth_and_runs_that_blow_up_are_counted(
    dimension,
):
    scenario = Burgers(num_points=64 // dimension**2, num_spatial_dims=dimension)
    data = scenario.get_test_data()
    statistics = trajectories.statistics(scenario.get_ref_stepper(), scenario, data)
    assert statistics["blew_up_later"] == 0
    assert statistics["mean_drift"] < 1e-5
    assert statistics["energy"] == statistics["autocorrelation"] == 0
    statistics = trajectories.statistics(lambda u: 2 * u, scenario, data)
    assert statistics["blew_up_later"] == 2
    assert statistics["energy"] is None
    statistics = trajectories.statistics(lambda u: u + 1e-3, scenario, data)
    assert statistics["mean_drift"] == pytest.approx(1.0, rel=1e-3)
