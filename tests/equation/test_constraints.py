import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import project, state
from helpers import WIDTH, largest

import ide_transformer as ide


GAIN = jnp.asarray(np.linspace(0.5, 2.0, WIDTH))
BIAS = jnp.asarray(np.linspace(-1.0, 1.0, WIDTH))
CONSISTENT = {
    "free": ide.Free(),
    "sphere": ide.Sphere(),
    "sphere of the paper": ide.Sphere(gain=2.0, bias=0.5),
    "sphere with vectors": ide.Sphere(GAIN, BIAS),
    "rms sphere": ide.RMSSphere(),
    "rms sphere with a vector": ide.RMSSphere(GAIN),
    "nonnegative": ide.Nonnegative(),
}
CHECKPOINT_MAPS = {"layer norm": ide.LayerNorm(GAIN, BIAS), "rms norm": ide.RMSNorm(GAIN)}


@eqx.filter_jit
def residual(constraint, u):
    return constraint.residual(u)


@pytest.mark.parametrize("constraint", CONSISTENT.values(), ids=CONSISTENT)
def test_projection_is_idempotent_and_on_the_set(constraint):
    once = project(constraint, state())
    assert largest(project(constraint, once), once) < 1e-14
    assert residual(constraint, once).max() < 1e-14


@pytest.mark.parametrize("name", ["sphere of the paper", "rms sphere", "nonnegative"])
def test_residual_sees_states_off_the_set(name):
    assert residual(CONSISTENT[name], state()).max() > 0.1


@pytest.mark.parametrize(
    "constraint", [*CONSISTENT.values(), *CHECKPOINT_MAPS.values()], ids=repr
)
def test_tangent_is_the_derivative_of_the_projection(constraint):

    @jax.jit
    def difference(u, du):
        _, expected = jax.jvp(constraint.project, (u,), (du,))
        return jnp.max(jnp.abs(constraint.tangent(u, du) - expected))

    assert difference(state(), state(seed=9)) < 1e-13


def test_tangent_of_the_nonnegative_set_on_its_boundary():
    """At u = 0 only growth is possible: the one-sided derivative."""
    zero = jnp.zeros((1, 2))
    tangent = ide.Nonnegative().tangent(zero, jnp.array([[1.0, -1.0]]))
    assert tangent.tolist() == [[1.0, 0.0]]


def test_theorem_3_1():
    """S1(σ1, σ2): the projection has mean σ1 and standard deviation σ2, and is the nearest
    point of the set."""
    sphere, u = ide.Sphere(gain=2.0, bias=0.5), np.asarray(state())
    projected = np.asarray(project(sphere, jnp.asarray(u)))
    assert np.allclose(projected.mean(-1), 0.5, atol=1e-14)
    assert np.allclose(projected.std(-1), 2.0, atol=1e-14)
    distance = np.linalg.norm(projected - u, axis=-1)
    for seed in range(20):
        other = project(sphere, jnp.asarray(u + np.asarray(state(seed=seed))))
        assert (np.linalg.norm(other - u, axis=-1) >= distance - 1e-12).all()


def test_layer_norm_is_the_sphere_where_gain_and_bias_are_numbers():
    u = state()
    normalized = project(ide.LayerNorm(2.0, 0.5, eps=0.0), u)
    assert largest(normalized, project(ide.Sphere(2.0, 0.5), u)) < 1e-14


def test_layer_norm_is_that_of_checkpoints():
    u = np.asarray(state())
    mean, variance = u.mean(-1, keepdims=True), u.var(-1, keepdims=True)
    expected = np.asarray(GAIN) * (u - mean) / np.sqrt(variance + 1e-5) + np.asarray(BIAS)
    assert largest(project(ide.LayerNorm(GAIN, BIAS), jnp.asarray(u)), expected) < 1e-14


def test_rms_norm_is_that_of_checkpoints():
    u = np.asarray(state())
    expected = np.asarray(GAIN) * u / np.sqrt((u**2).mean(-1, keepdims=True) + 1e-5)
    assert largest(project(ide.RMSNorm(GAIN), jnp.asarray(u)), expected) < 1e-14
