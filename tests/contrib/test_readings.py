"""Readings of a model whose layers multiply the state by `a_n = 1 - c_n`, so that they can be
written down."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import Mock

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import contrib
from ide_transformer.contrib import controlled, steering
from ide_transformer.contrib.depth_problem import Problem
from ide_transformer.contrib.readings import GROUPS, Pairs
from ide_transformer.training import LoadedModel
from tests.helpers import built


RATES = np.array([0.1, 0.3, 0.2])
FACTORS = 1 - RATES
# Of what is done at the end of a layer, what is left at the end of all.
AFTER = np.array([FACTORS[n + 1 :].prod() for n in range(3)])
INPUTS = np.random.default_rng(0).integers(0, 2, (GROUPS, 4))


def losses_of(outputs):
    """Losses of degree two, so that `⟨p, u⟩` is twice the loss at all depths."""
    return jnp.mean(outputs**2, axis=(1, 2))


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """The model that is loaded, and its problem."""
    model = built(
        lambda: ide.LanguageModel(
            *(2, 4, 4),
            control=ide.PiecewiseConstant((ide.Damping(jnp.zeros(3)),)),
            constraint=ide.Free(),
            mesh=ide.Mesh(solver=diffrax.Euler()),
            output_normalization=ide.Free(),
            key=jax.random.key(0),
        )
    )
    control = ide.PiecewiseConstant((ide.Damping(jnp.asarray(RATES)),))
    model = dataclasses.replace(model, control=control)
    for study in (controlled, steering):
        monkeypatch.setattr(
            study, "load_model", lambda path, **_: LoadedModel(model, None, Path(path))
        )
        monkeypatch.setattr(
            study, "make_problem", lambda *_: Problem(INPUTS, INPUTS, losses_of)
        )
    return model


def embedded(model):
    table, places = np.asarray(model.inputs.embedding), np.asarray(model.inputs.positions)
    return table[INPUTS] + places, table


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:All-NaN")  # the exponents of all samples are the same
def test_a_model_read_as_a_controlled_system(model, tmp_path, monkeypatch):
    parts = []
    monkeypatch.setattr(controlled, "write_page", lambda *page: parts.extend(page[-1]))
    rows = controlled.study_dynamics("it", tmp_path, samples=GROUPS + 5, predict=True)
    u0, table = embedded(model)
    u1 = u0 * FACTORS.prod()
    logits = u1 @ table.T
    loss = np.mean(logits**2)
    slope = 2 / logits.size * logits @ table
    for n, (row, c) in enumerate(zip(rows, RATES, strict=True)):
        before, left = FACTORS[:n].prod(), AFTER[n] * FACTORS[n]
        expected = {
            "layer": n,
            "hamiltonian, Damping": -2 * c * loss,
            "stationarity, Damping": 2 * loss,
            "costate": np.sqrt(np.mean((slope * left) ** 2)),
            "state": np.sqrt(np.mean((u0 * before) ** 2)),
            "log_norm": -c,
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, rel=1e-6), name
    written = json.loads((tmp_path / "dynamics.json").read_text())
    assert written["samples"] == GROUPS  # there are no more
    assert written["layers"] == rows and "heads" not in written
    assert written["exponents"] == pytest.approx([np.log(FACTORS).sum() / 3] * 8)
    # Without a layer the loss is larger by 1/a², and with two steps in it by (1 - c/2)⁴/a²:
    # both grow with c, as -⟨p, A(u)⟩ = 2 c J does, and the log-norm falls.
    found = {(row["reading"], row["measured"]): row for row in written["predictions"]}
    for pair, sign in (
        (("-⟨p, A_i(u)⟩", "loss without it"), 1),
        (("log-norm", "loss with two steps in it"), -1),
    ):
        row = found[pair]
        assert [row[x] for x in ("correlation", "low", "high")] == pytest.approx([sign] * 3)
    titles = [part.title for part in parts]
    assert titles[0] == "What the loss feels" and titles[-1] == "Numbers"
    assert "What the readings predict" in titles and "Scales" not in titles


def test_correlations_are_those_of_the_means_over_groups():
    """Units in their order, and in the opposite one in a group that weighs less."""
    units = np.arange(5.0)
    pairs = Pairs("a", "b", "layers", np.stack([units, units]), np.stack([3 * units, -units]))
    row = pairs.row()
    assert row["correlation"] == pytest.approx(1) and row["units"] == "5 layers"
    # A draw of the second group alone turns the order.
    assert row["low"] == pytest.approx(-1) and row["high"] == pytest.approx(1)


@pytest.mark.heavy
def test_steering_takes_the_least_energy(model, tmp_path, monkeypatch, unchecked):
    """A push in layer n moves the log-odds by `AFTER_n (e - e')·v`: the least energy that moves
    them by g is `g² / |e - e'|² Σ AFTER²`, and the sum is over the layers that may push."""
    monkeypatch.setattr(steering, "_most", lambda aim: np.full(GROUPS, -np.inf))
    monkeypatch.setattr(steering, "_OPTIMISED", 1)
    given = dict(probability=0.9, samples=GROUPS, tokens=3, iterations=4)
    row = steering.study_steering("it", tmp_path, **given)
    assert row["inputs"] == row["reached"] == row["possible"] == GROUPS
    share = AFTER**2 / np.sum(AFTER**2)
    assert row["share of each layer"] == pytest.approx(share)
    for q in (5, 50, 95):
        assert row[f"ratio, {q} %"] == pytest.approx(share.max())
    assert row["best layer"] == [0, 0, GROUPS] and row["at most a third"] == 0
    assert row["above the optimiser"] == pytest.approx([0], abs=1e-2)
    assert json.loads((tmp_path / "steering.json").read_text()) == row
    assert (tmp_path / "steering.png").exists()
    # To what is less likely now, from the first three tokens.
    aim = steering.Aim.drawn(LoadedModel(model, None, Path("it")), GROUPS, 3)
    u0, table = embedded(model)
    np.testing.assert_array_equal(aim.targets, np.argmin(u0[:, 2] @ table.T, axis=1))
    with pytest.raises(ide.InputError, match=r"probability=1.0: give one between 0 and 1"):
        steering.study_steering("it", tmp_path, **given | {"probability": 1.0})
    few = Problem(INPUTS, INPUTS[:2], losses_of)
    monkeypatch.setattr(controlled, "make_problem", lambda *_: few)
    with pytest.raises(ide.InputError, match="samples=2: predict needs 8 or more"):
        controlled.study_dynamics("it", tmp_path, samples=9, predict=True)
    with pytest.raises(ide.InputError, match="steered to a class or to the next token"):
        steering.Aim.drawn(LoadedModel(Mock(), None, Path("it")), GROUPS, 3)
    steer = contrib.steering.steer

    def missed(*given, **others):
        """The first input is steered by pushes in all layers alone."""
        found = steer(*given, **others)
        return found._replace(reached=found.reached.at[0].add(1.0 * ("intervals" in others)))

    monkeypatch.setattr(steering, "steer", missed)
    assert steering.study_steering("it", tmp_path, **given)["best layer"] == [0, 0, GROUPS - 1]
