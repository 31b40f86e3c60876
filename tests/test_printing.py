"""Equations, models and solutions print in a few lines, and are pickled."""

import copy
import functools as ft
import pickle

import diffrax
import equinox as eqx
import jax
import pytest
from helpers import make_equation, random_state
from models.examples import filled, language_model
from models.test_every_model import MODELS, MORE

import ide_transformer as ide


def assert_short(text):
    lines = text.splitlines()
    assert len(lines) < 15
    assert max(map(len, lines)) <= 96


@pytest.mark.parametrize("name", MODELS | MORE)
def test_every_model(name):
    model = filled((MODELS | MORE)[name][0])
    text = repr(model)
    assert_short(text)
    leaves = jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
    assert f"parameters: {sum(x.size for x in leaves):,}" in text
    for part in model.equations:
        for named in (*part.control(0.0), part.discretization.solver, part.read_out):
            assert type(named).__name__ in text


def test_trees_without_numbers():
    """Under transformations, and in the trees that JAX makes of a model."""
    model = filled(language_model)
    traced = []
    eqx.filter_eval_shape(lambda model: traced.append(repr(model)), model)
    assert traced == [repr(model)]
    with_flags = jax.tree.map(lambda _: True, model)
    for tree in (
        eqx.filter_eval_shape(eqx.filter_vmap(lambda _: model, axis_size=5), 0),
        eqx.filter(model, eqx.is_array, inverse=True),
        eqx.tree_at(lambda x: (x.control, x.constraint), with_flags, (False, False)),
        eqx.tree_at(lambda x: x.discretization, with_flags, False),
    ):
        assert_short(repr(tree))
        assert repr(tree).startswith("Model")


def test_a_solution_is_printed_and_pickled():
    solve = eqx.filter_jit(ft.partial(ide.solve, solver=ide.Strang()))
    solution = solve(make_equation(), random_state(), saveat=diffrax.SaveAt(dense=True))
    copies = pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)
    evaluate = eqx.filter_jit(lambda solution: solution.evaluate(0.3))
    for one in (solution, *copies):
        text = repr(one)
        assert_short(text)
        for entry in ("status: succeeded", "steps: 3", "field evaluations: 9"):
            assert f"  {entry}\n" in text + "\n"
        assert (evaluate(one) == evaluate(solution)).all()


def test_gradient_modes_are_pickled():
    policy = jax.checkpoint_policies.dots_saveable
    for mode in (ide.Recompute(policy=policy), ide.Reversible(), ide.Recursive(3)):
        x = ide.Discretization(ide.Strang(), gradient=mode)
        assert eqx.tree_equal(pickle.loads(pickle.dumps(x)), x, typematch=True)
