"""Defects of one step, against the states of solves and the definitions; the error of leaving
out a layer, predicted and measured."""

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import TOKENS, built_control, largest, random_state
from layered_models import HELD_OUT, mean_over_tokens, model_of, simple_block

import ide_transformer as ide
from ide_transformer import dynamics
from ide_transformer.dynamics import removal_damage, removal_estimate


equation_defects = eqx.filter_jit(dynamics.equation_defects)

U0, LENGTH, SEEN = random_state(2), 0.5, 4
HEUN, LAYERS = diffrax.Heun(), diffrax.SaveAt(ts=LENGTH * np.arange(4.0))


def equation_of(opposite=False):
    """On intervals that are shorter than layers; the last tokens are padding."""
    blocks = built_control(simple_block, 3).blocks[:: -1 if opposite else 1]
    domain = ide.TokenDomain.uniform(TOKENS).padded(np.arange(TOKENS) < SEEN)
    return ide.Equation(ide.PiecewiseConstant(blocks, LENGTH), ide.Free(), domain)


@eqx.filter_jit
def layer_states(equation, solver, steps):
    solution = ide.solve(equation, U0, solver=solver, steps_per_interval=steps, saveat=LAYERS)
    return solution.us[:, :, :SEEN]


def test_defects_are_those_of_the_states_of_solves():
    """And the block influence is the mean over tokens of one minus the cosine."""

    def states(solver, steps, **options):
        return np.asarray(layer_states(equation_of(**options), solver, steps))

    def size(x):
        return np.sqrt(np.mean(np.square(x), axis=(-1, -2, -3)))

    us = states(ide.Strang(HEUN), 2)
    found = equation_defects(equation_of(), U0, solver=ide.Strang(HEUN), steps_per_interval=2)
    steps, sizes = np.diff(us, axis=0), size(us[:-1])
    assert largest(found.state, sizes) < 1e-12
    assert largest(found.increment, size(steps) / sizes) < 1e-12
    first, second = steps[0].ravel(), steps[1].ravel()
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert np.isnan(found.alignment[0]) and abs(found.alignment[1] - cosine) < 1e-12
    norms = np.linalg.norm(us, axis=-1)
    cosines = np.sum(us[0] * us[1], axis=-1) / (norms[0] * norms[1])
    assert abs(found.turn[0] - np.mean(1 - cosines)) < 1e-12

    plain, opposite = (states(ide.LieTrotter(HEUN), 2, opposite=x) for x in (False, True))
    expected = {
        "step_doubling": size(states(ide.Strang(HEUN), 4) - us),
        "splitting": size(plain - us),
        "commutator": size(plain - opposite) / (LENGTH * LENGTH / 2),
    }
    for name, sizes_after in expected.items():
        assert abs(getattr(found, name)[0] - sizes_after[1] / sizes[0]) < 1e-12, name


def test_a_scheme_that_does_not_split_has_no_splitting_errors():
    """Nor has one around a splitting, whose sub-solver is not its own."""
    found = equation_defects(equation_of(), U0, solver=diffrax.HalfSolver(ide.LieTrotter()))
    assert jnp.isnan(found.splitting).all() and jnp.isnan(found.commutator).all()
    assert jnp.isfinite(found.step_doubling).all()
    with pytest.raises(ide.InputError, match="HeavyBall uses earlier steps"):
        dynamics.equation_defects(equation_of(), U0, solver=ide.HeavyBall())


def test_the_estimate_is_exact_for_small_defects():
    """The linearised march is the march, to first order in what is left out."""
    errors = []
    for size in (0.1, 0.01):
        model = model_of(scales=(1.0, size, 1.0, 1.0))
        estimate = removal_estimate(model, HELD_OUT, mean_over_tokens)[1]
        errors.append(abs(estimate / removal_damage(model, HELD_OUT, mean_over_tokens)[1] - 1))
    assert errors[1] < 0.2 * errors[0] < 0.02
    nothing = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    estimate = np.asarray(removal_estimate(nothing, HELD_OUT, mean_over_tokens))
    damage = removal_damage(nothing, HELD_OUT, mean_over_tokens)
    assert estimate[1] == damage[1] == 0 < min(np.delete(estimate, 1))


@pytest.mark.heavy
def test_the_estimate_is_that_of_the_native_steps():
    """With one step in each interval the error would be two percent larger."""
    model = model_of(scales=(1.0, 0.001, 1.0, 1.0)).with_options(steps_per_interval=3)
    for native in (model, model.with_solver(diffrax.Heun(), steps_per_interval=1)):
        estimate = removal_estimate(native, HELD_OUT)[1]
        assert abs(estimate / removal_damage(native, HELD_OUT)[1] - 1) < 1e-3
