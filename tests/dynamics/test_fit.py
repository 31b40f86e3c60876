"""Step sizes fitted to the native outputs."""

import numpy as np
import pytest
from helpers import WIDTH, fast_first, largest
from layered_models import CALIBRATION, HELD_OUT, mean_over_tokens, model_of, outputs, tokens

from ide_transformer.dynamics import fit_rates, keep_layers, native_target


@pytest.mark.parametrize(
    ("name", "read"),
    fast_first(
        1,
        [
            ("post-norm", mean_over_tokens),
            ("free", None),
            ("free", mean_over_tokens),
            ("post-norm", None),
        ],
        heavy=1,
    ),
)
def test_fitted_step_sizes_lessen_the_error_also_on_other_inputs(name, read):
    model = model_of(name)
    coarse, many = keep_layers(model, [0, 1, 3]), tokens(24, 5)
    target = native_target(model, many, read)
    fitted = fit_rates(coarse, target, steps=24, batch=8)
    assert fitted.control.blocks[0].rate.shape == (3, WIDTH)
    for judge in (target, native_target(model, HELD_OUT, read)):
        assert judge.error(fitted) < 0.9 * judge.error(coarse)


@pytest.mark.heavy
def test_batches_of_the_fit_follow_one_another():
    """With a batch of one, three steps see the first three samples only. A target that is
    already met leaves the step sizes."""
    model = model_of()
    coarse, target = keep_layers(model, [0, 1, 3]), native_target(model, CALIBRATION)
    parts = [target, *(target.part(np.array(x)) for x in ([0, 1, 2, 0], [3, 1, 2, 0]))]
    whole, three, other = (outputs(fit_rates(coarse, part, steps=3, batch=1)) for part in parts)
    assert largest(whole, three) < 1e-12 < largest(whole, other)
    met = fit_rates(coarse, native_target(coarse, CALIBRATION), steps=3, batch=1)
    assert largest(outputs(met), outputs(coarse)) < 1e-12
