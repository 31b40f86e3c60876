"""More steps in an interval, and extrapolation to the limit."""

import diffrax
import equinox as eqx
import numpy as np
from helpers import drawn, largest
from layered_models import HELD_OUT, model_of

import ide_transformer as ide
from ide_transformer.dynamics import extrapolated, refine, richardson


@eqx.filter_jit
def state(model):
    return model.solve(HELD_OUT).u1


@eqx.filter_jit
def read_out(model, u):
    return model.outputs(u)


def test_an_extrapolated_model_is_that_of_two_refined_ones():
    model = model_of("sphere")
    coarse, fine = (state(refine(model, k)) for k in (2, 4))
    expected = read_out(model, 2 * np.asarray(fine) - np.asarray(coarse))
    assert largest(richardson(model, 2, HELD_OUT), expected) < 1e-12
    second = model_of().with_solver(ide.Strang(diffrax.Heun()))
    coarse, fine = drawn((2, 3), 0)
    assert largest(extrapolated(second, coarse, fine), (4 * fine - coarse) / 3) < 1e-12
