"""A model whose equation is solved up to other depths."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import largest, make_block

import ide_transformer as ide


def model_of(control, *, constraint=None, solver=None, length=1.0):
    theta = control.build(make_block, 3, key=jax.random.key(1))
    if control is ide.Tied:
        theta = ide.Tied(theta.block, 3, length)
    return ide.LanguageModel(
        5,
        6,
        16,
        control=theta,
        constraint=ide.Free() if constraint is None else constraint,
        discretization=ide.Discretization(solver or ide.LieTrotter()),
        key=jax.random.key(2),
    )


def test_a_longer_horizon_passes_through_the_old_end():
    """Against steps made by hand: half of the way of six steps is the state after three."""
    model, tokens = model_of(ide.Tied), np.array([0, 3, 1, 4, 2, 2])
    longer = model.on(ide.Mesh(horizon=6.0))
    assert longer.control.num_intervals == longer.constraint.num_intervals == 6
    assert longer.control.interval_length == 1.0
    assert longer.equation.horizon == 6.0
    u, domain = model.embed(tokens)
    states = [u]
    for _ in range(6):
        for operator in model.control.block:
            u = u + operator(u, domain)
        states.append(u)
    found = longer.solve(tokens, saveat=diffrax.SaveAt(ts=jnp.arange(7.0))).us
    assert largest(found, jnp.stack(states)) < 1e-12
    assert largest(model.solve(tokens).u1, states[3]) < 1e-12
    assert largest(longer.on(ide.Mesh(horizon=1.0)).solve(tokens).u1, states[1]) < 1e-12
    assert largest(longer(tokens), model.outputs(states[6])) < 1e-12


def test_steps_keep_their_size():
    model = model_of(ide.Tied, length=0.5)
    assert model.on(ide.Mesh(horizon=4.0)).control.num_intervals == 8
    finer = model.on(ide.Mesh(intervals=6)).on(ide.Mesh(horizon=4.0))
    assert (finer.control.num_intervals, finer.control.interval_length) == (16, 0.25)
    with pytest.raises(ide.InputError, match=r"extend\(1\.7\).* multiple .* 0\.5"):
        model.on(ide.Mesh(horizon=1.7))


class Stuck(ide.PiecewiseConstant):
    """Layers that stay as they are on every mesh."""

    def resample(self, num_intervals):
        return self


def test_a_mesh_that_a_control_does_not_make():
    model = model_of(ide.PiecewiseConstant)
    model = eqx.tree_at(lambda m: m.control, model, Stuck(model.control.blocks))
    assert model.on(ide.Mesh(intervals=3)).control.num_intervals == 3
    with pytest.raises(ide.InputError, match=r"Stuck.resample\(6\) gives 3 intervals"):
        model.on(ide.Mesh(intervals=6))


@pytest.mark.parametrize(
    ("horizon", "message"),
    [
        (0.5, r"multiple of the length of its intervals, 1, for example 1"),
        (1e9, "at most 8,388,608 steps apart"),
    ],
)
def test_horizons_that_cannot_be_are_refused(horizon, message):
    with pytest.raises(ide.InputError, match=message):
        model_of(ide.Tied).on(ide.Mesh(horizon=horizon))


def test_a_control_that_ends_is_refused():
    for control in (ide.PiecewiseConstant, ide.Chebyshev):
        with pytest.raises(ide.InputError, match=f"{control.__name__} gives weights at depths"):
            model_of(control).on(ide.Mesh(horizon=6.0))
    sets = ide.PiecewiseConstant.build(
        lambda key: (ide.LayerNorm(jnp.ones(16)),) * 2, 3, key=jax.random.key(0)
    )
    with pytest.raises(ide.InputError, match="PiecewiseConstant gives weights at depths"):
        model_of(ide.Tied, constraint=sets).on(ide.Mesh(horizon=6.0))
