"""The search for coarser meshes."""

import itertools

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fast_first, largest, make_block
from layered_models import (
    CALIBRATION,
    HELD_OUT,
    LAYERS,
    VOCABULARY,
    mean_over_tokens,
    model_of,
    outputs,
)

import ide_transformer as ide
from ide_transformer.dynamics import coarsen, coarsenings, keep_layers, native_target
from ide_transformer.dynamics.meshes import field_evaluations


def test_the_full_budget_changes_nothing():
    model = model_of()
    assert coarsen(model, float(LAYERS), CALIBRATION) is model


def test_a_layer_that_does_nothing_goes_first():
    model = model_of(scales=(1.0, 0.0, 1.0, 1.0))
    meshes = coarsenings(model, CALIBRATION, fit=None)
    native, first = itertools.islice(meshes, 2)
    assert (native.evaluations, first.evaluations) == (LAYERS, LAYERS - 1)
    assert first.steps[:, 0].tolist() == ["0", "2", "3"] and first.error < 1e-12
    assert largest(outputs(first.model), outputs(model)) < 1e-12


@pytest.mark.parametrize(
    ("name", "budget"), fast_first(1, [("post-norm", 3.5), ("free", 2.5)], heavy=0)
)
def test_a_coarsened_model_costs_its_budget_and_is_an_ordinary_model(name, budget):
    coarse = coarsen(model_of(name), budget, CALIBRATION, fit=None)
    assert field_evaluations(coarse, HELD_OUT) == int(budget)
    strang = coarse.with_solver(ide.projected(ide.Strang(diffrax.Heun())), steps_per_interval=2)
    shape = eqx.filter_eval_shape(strang, HELD_OUT).shape
    assert shape == (*HELD_OUT.shape, VOCABULARY)

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(model):
        return jnp.sum(model(HELD_OUT) ** 2)

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(gradient(coarse).control)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert any(leaf.any() for leaf in leaves)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("read", "fewer"),
    fast_first(
        0, [(mean_over_tokens, 1), (mean_over_tokens, LAYERS - 1), (None, LAYERS - 1)], heavy=1
    ),
)
def test_no_coarsening_is_worse_than_a_choice_of_layers_where_it_was_chosen(read, fewer):
    model = model_of("post-norm", scales=(0.5, 1.2, 0.2, 0.8))
    judge = native_target(model, CALIBRATION, read).part(np.array([3]))
    for coarse in itertools.islice(coarsenings(model, CALIBRATION, read=read), 1, fewer + 1):
        choices = itertools.combinations(range(LAYERS), len(coarse.steps))
        least = min(judge.error(keep_layers(model, layers)) for layers in choices)
        assert abs(judge.error(coarse.model) - coarse.error) < 1e-12
        assert coarse.error <= least + 1e-12


@pytest.mark.usefixtures("unchecked")
def test_a_budget_below_one_interval_is_refused():
    with pytest.raises(ide.InputError, match=r"evaluations=0\.5.*makes 1 with LieTrotter"):
        coarsen(model_of(), 0.5, CALIBRATION)


@pytest.mark.heavy
@pytest.mark.usefixtures("unchecked")
def test_a_budget_below_that_of_the_first_step_of_a_scheme_is_refused():
    """Adams–Bashforth makes two evaluations in its first step and one in each that follows; on
    layers every step is a first one."""
    theta = ide.PiecewiseLinear.build(make_block, 2, key=jax.random.key(1))
    constraint = ide.Tied(ide.Free(), 2)
    smooth = eqx.tree_at(
        lambda m: (m.control, m.constraint),
        model_of().with_solver(ide.AdamsBashforth(2)),
        (theta, constraint),
    )
    with pytest.raises(ide.InputError, match=r"evaluations=1\.6, but one interval .* makes 2"):
        coarsen(smooth, 1.6, CALIBRATION, fit=None)
