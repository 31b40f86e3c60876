"""The error of leaving out a layer, predicted and measured."""

import diffrax
import numpy as np
import pytest
from layered_models import HELD_OUT, mean_over_tokens, model_of

import ide_transformer as ide
from ide_transformer.dynamics import defects, removal_damage, removal_estimate


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


def test_steps_that_are_not_those_of_each_interval_alone_are_refused():
    controller = diffrax.PIDController(rtol=1e-3, atol=1e-3)
    adaptive = model_of().with_solver(diffrax.Tsit5(), stepsize_controller=controller)
    with pytest.raises(ide.InputError, match="adaptive steps"):
        removal_estimate(adaptive, HELD_OUT)
    with pytest.raises(ide.InputError, match="HeavyBall uses earlier steps"):
        defects(model_of().with_solver(ide.HeavyBall()), HELD_OUT)
