"""The search for coarser meshes, and step sizes fitted to the native outputs."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import WIDTH, largest
from layered_models import CALIBRATION, HELD_OUT, LAYERS, mean_over_tokens, model_of, outputs

import ide_transformer as ide
from ide_transformer.dynamics import coarsen, coarsenings, fit_rates, keep_layers, native_target
from ide_transformer.dynamics.meshes import field_evaluations, relative_error, zero_padding


def test_padded_tokens_do_not_enter_an_error():
    domain = ide.TokenDomain.uniform(6)
    y = np.random.default_rng(0).normal(size=(2, 6, 3))
    worse = y + (np.arange(6) >= 4)[:, None]
    errors = [
        relative_error(*(zero_padding(jnp.asarray(x), where) for x in (worse, y)))
        for where in (domain.padded(jnp.arange(6) < 4), domain)
    ]
    exact = np.linalg.norm(worse - y) / np.linalg.norm(y)
    assert errors[0] == 0 and abs(errors[1] - exact) < 1e-12


def test_a_layer_that_does_nothing_goes_first():
    """The other layers cost the budget, and are an ordinary model."""
    model = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    assert coarsen(model, float(LAYERS), CALIBRATION) is model
    native, first = itertools.islice(coarsenings(model, CALIBRATION, fit=None), 2)
    assert (native.evaluations, first.evaluations) == (LAYERS, LAYERS - 1)
    assert first.steps[:, 0].tolist() == ["0", "2", "3"] and first.error < 1e-12
    assert largest(outputs(first.model), outputs(model)) < 1e-12
    coarse = coarsen(model, 3.5, CALIBRATION, fit=None)
    assert field_evaluations(coarse, HELD_OUT) == 3
    with pytest.raises(ide.InputError, match=r"evaluations=0\.5.*makes 1 with LieTrotter"):
        coarsen(model, 0.5, CALIBRATION)


@pytest.mark.heavy
def test_fitted_step_sizes_lessen_the_error_also_on_other_inputs():
    model, read = model_of("post-norm"), mean_over_tokens
    coarse = keep_layers(model, [0, 1, 3])
    many = np.random.default_rng(5).integers(11, size=(24, HELD_OUT.shape[1]))
    target = native_target(model, many, read)
    fitted = fit_rates(coarse, target, steps=24, batch=8)
    assert fitted.control.blocks[0].rate.shape == (3, WIDTH)
    for judge in (target, native_target(model, HELD_OUT, read)):
        assert judge.error(fitted) < 0.9 * judge.error(coarse)
