import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, largest, random_state

import ide_transformer as ide


GAIN = jnp.linspace(0.5, 2.0, WIDTH)
BIAS = jnp.linspace(-1.0, 1.0, WIDTH)
CONSISTENT = {
    "free": ide.Free(),
    "sphere": ide.Sphere(),
    "sphere of the paper": ide.Sphere(gain=2.0, bias=0.5),
    "sphere with vectors": ide.Sphere(GAIN, BIAS),
    "rms sphere": ide.RMSSphere(),
    "rms sphere with a vector": ide.RMSSphere(GAIN),
    "nonnegative": ide.Nonnegative(),
}
CHECKPOINT_MAPS = {
    "layer norm": ide.LayerNorm(GAIN, BIAS),
    "rms norm": ide.RMSNorm(GAIN),
}


@pytest.mark.parametrize("constraint", CONSISTENT.values(), ids=CONSISTENT)
def test_projection_is_idempotent_and_on_the_set(constraint):
    u = random_state(3)
    once = constraint.project(u)
    assert largest(constraint.project(once), once) < 1e-14
    assert float(constraint.residual(once).max()) < 1e-14


@pytest.mark.parametrize("name", ["sphere of the paper", "rms sphere", "nonnegative"])
def test_residual_sees_states_off_the_set(name):
    assert float(CONSISTENT[name].residual(random_state()).max()) > 0.1


@pytest.mark.parametrize(
    "constraint", [*CONSISTENT.values(), *CHECKPOINT_MAPS.values()], ids=repr
)
def test_tangent_is_the_derivative_of_the_projection(constraint):
    u, du = random_state(2), random_state(2, seed=9)
    _, expected = jax.jvp(constraint.project, (u,), (du,))
    assert largest(constraint.tangent(u, du), expected) < 1e-13


def test_tangent_of_the_nonnegative_set_on_its_boundary():
    """At u = 0 only growth is possible: the one-sided derivative."""
    zero = jnp.zeros((1, 2))
    tangent = ide.Nonnegative().tangent(zero, jnp.array([[1.0, -1.0]]))
    assert tangent.tolist() == [[1.0, 0.0]]


def test_theorem_3_1():
    """S1(σ1, σ2): the projection has mean σ1 and standard deviation σ2, and is the nearest
    point of the set."""
    u = random_state()
    projected = np.asarray(ide.Sphere(gain=2.0, bias=0.5).project(u))
    assert np.allclose(projected.mean(-1), 0.5, atol=1e-14)
    assert np.allclose(projected.std(-1), 2.0, atol=1e-14)
    distance = np.linalg.norm(projected - u, axis=-1)
    for seed in range(20):
        other = ide.Sphere(gain=2.0, bias=0.5).project(u + random_state(seed=seed))
        assert (np.linalg.norm(other - u, axis=-1) >= distance - 1e-12).all()


def test_layer_norm_is_the_sphere_where_gain_and_bias_are_numbers():
    u = random_state()
    assert (
        largest(ide.LayerNorm(2.0, 0.5, eps=0.0).project(u), ide.Sphere(2.0, 0.5).project(u))
        < 1e-14
    )


def test_layer_norm_is_that_of_checkpoints():
    u = np.asarray(random_state())
    mean, variance = u.mean(-1, keepdims=True), u.var(-1, keepdims=True)
    expected = np.asarray(GAIN) * (u - mean) / np.sqrt(variance + 1e-5) + np.asarray(BIAS)
    assert largest(ide.LayerNorm(GAIN, BIAS).project(jnp.asarray(u)), expected) < 1e-14


def test_rms_norm_is_that_of_checkpoints():
    u = np.asarray(random_state())
    expected = np.asarray(GAIN) * u / np.sqrt((u**2).mean(-1, keepdims=True) + 1e-5)
    assert largest(ide.RMSNorm(GAIN).project(jnp.asarray(u)), expected) < 1e-14
