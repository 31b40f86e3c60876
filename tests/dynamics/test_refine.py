"""More steps in an interval: limits, and extrapolation to them."""

import equinox as eqx
import pytest
from helpers import largest, observed_order
from layered_models import HELD_OUT, model_of, outputs

import ide_transformer as ide
from ide_transformer.dynamics import extrapolated, refine, richardson


@eqx.filter_jit
def state(model):
    return model.solve(HELD_OUT).u1


@eqx.filter_jit
def read_out(model, u):
    return model.outputs(u)


def test_refined_models_converge_and_extrapolated_ones_faster():
    model = model_of("sphere")
    fine = model.with_solver(ide.projected(ide.RK4()), steps_per_interval=32)
    exact, steps = read_out(model, state(fine)), (8, 16, 32)
    states = {k: state(refine(model, k)) for k in (*steps, 64)}

    def error(u):
        return largest(read_out(model, u), exact)

    assert abs(observed_order(lambda k: error(states[k]), steps) - 1) < 0.15
    better = observed_order(
        lambda k: error(extrapolated(model, states[k], states[2 * k])), steps
    )
    assert abs(better - 2) < 0.15
    expected = read_out(model, 2 * states[16] - states[8])
    assert largest(richardson(model, 8, HELD_OUT), expected) < 1e-12


def test_layer_norm_with_a_gain_has_no_limit():
    model = model_of("post-norm")
    found = [outputs(refine(model, k)) for k in (8, 16, 32)]
    assert largest(found[2], found[1]) > 0.7 * largest(found[1], found[0]) > 1e-3


def test_a_scheme_without_an_order_is_refused():
    with pytest.raises(ide.InputError, match="order of"):
        extrapolated(model_of().with_solver(ide.SteadyState()), None, None)
