"""Projections of the paper and of checkpoints; `test_every_constraint` has their properties."""

import jax.numpy as jnp
import numpy as np
from equation.problems import project, state
from helpers import WIDTH, largest

import ide_transformer as ide


GAIN, BIAS = np.linspace(0.5, 2.0, WIDTH), np.linspace(-1.0, 1.0, WIDTH)


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


def test_norms_are_those_of_checkpoints():
    u = np.asarray(state())
    mean, variance = u.mean(-1, keepdims=True), u.var(-1, keepdims=True)
    expected = GAIN * (u - mean) / np.sqrt(variance + 1e-5) + BIAS
    assert largest(project(ide.LayerNorm(GAIN, BIAS), state()), expected) < 1e-14
    expected = GAIN * u / np.sqrt((u**2).mean(-1, keepdims=True) + 1e-5)
    assert largest(project(ide.RMSNorm(GAIN), state()), expected) < 1e-14
    plain = project(ide.LayerNorm(2.0, 0.5, eps=0.0), state())
    assert largest(plain, project(ide.Sphere(2.0, 0.5), state())) < 1e-14


def test_norms_take_means_with_the_weights_of_the_domain():
    domain, u = ide.FeatureDomain(WIDTH, "gauss_legendre"), np.asarray(state())
    mean = u @ domain.weights
    v = (u - mean[:, None]) / np.sqrt(u**2 @ domain.weights - mean**2)[:, None]
    assert largest(project(ide.Sphere(domain=domain), state()), v) < 1e-12
    root = project(ide.RMSNorm(eps=0.0, domain=domain), state())
    assert largest(root, u / np.sqrt(u**2 @ domain.weights)[:, None]) < 1e-12
