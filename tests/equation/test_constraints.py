"""Projections of the paper and of checkpoints; `test_every_constraint` has their properties."""

import jax.numpy as jnp
import numpy as np
from equation.problems import project, state
from helpers import WIDTH, drawn, largest

import ide_transformer as ide


GAIN, BIAS = np.linspace(0.5, 3.0, WIDTH), np.linspace(-1.0, 1.0, WIDTH)


def test_theorem_3_1():
    """S1(σ1, σ2): the projection has mean σ1 and standard deviation σ2. It is the state nearest
    in `mean_y (v/γ)²`; with a gain γ for each feature not the one in the Euclidean distance."""
    u = np.asarray(state())
    projected = np.asarray(project(ide.Sphere(gain=2.0, bias=0.5), u))
    assert largest(projected.mean(-1), 0.5) < 1e-14 and largest(projected.std(-1), 2) < 1e-14
    sphere = ide.Sphere(jnp.asarray(GAIN), jnp.full(WIDTH, 0.3))
    nearest = np.asarray(project(sphere, u[0]))
    others = project(sphere, nearest + np.asarray(drawn((2000, WIDTH), seed=0, std=0.1)))
    for metric, is_nearest in ((GAIN, True), (1.0, False)):
        gaps = np.linalg.norm((np.asarray(others) - u[0]) / metric, axis=-1)
        assert (gaps.min() > np.linalg.norm((nearest - u[0]) / metric)) == is_nearest


def test_norms_are_those_of_checkpoints():
    u = np.asarray(state())
    mean, variance = u.mean(-1, keepdims=True), u.var(-1, keepdims=True)
    expected = GAIN * (u - mean) / np.sqrt(variance + 1e-5) + BIAS
    assert largest(project(ide.LayerNorm(GAIN, BIAS), u), expected) < 1e-14
    expected = GAIN * u / np.sqrt((u**2).mean(-1, keepdims=True) + 1e-5)
    assert largest(project(ide.RMSNorm(GAIN), u), expected) < 1e-14
