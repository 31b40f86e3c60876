"""Equations, models and solutions print in a few lines, and are pickled."""

import copy
import pickle

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import make_equation, random_state
from models.examples import filled, language_model
from models.test_every_model import MODELS, MORE

import ide_transformer as ide
from ide_transformer.equation import spelled


ADAPTIVE = {
    "solver": diffrax.Tsit5(),
    "stepsize_controller": diffrax.PIDController(rtol=1e-3, atol=1e-3),
}


def assert_short(text):
    lines = text.splitlines()
    assert len(lines) < 15
    assert max(map(len, lines)) <= 96


def test_an_equation():
    equation = make_equation(constraint=ide.Sphere(gain=2.0))
    assert repr(equation).splitlines() == [
        "Equation",
        "  parameters: 6,481",
        "  control: PiecewiseConstant, 3 intervals of length 1",
        "  constraint: Sphere([])",
        "  operator 1: Attention(query=[16,16] + bias, key=[16,16] + bias, value=[16,16] + "
        "bias,",
        "    output=[16,16] + bias, normalization=LayerNorm(), heads=4, key_value_heads=4,",
        "    region=Volterra())",
        "  operator 2: FeedForward(inner=[16,32] + bias, outer=[32,16] + bias, "
        "normalization=LayerNorm())",
        "  domain: TokenDomain(points=[6,1], grid=(6))",
    ]


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


def test_the_scheme_of_a_model():
    model = filled(language_model)
    assert "scheme: LieTrotter(Euler())" in repr(model)
    model = model.with_solver(ide.Strang(diffrax.Heun()), steps_per_interval=2)
    assert "scheme: solver=Strang(Heun()), steps_per_interval=2" in repr(model)
    model = model.with_solver(gradient=ide.Recursive(3), **ADAPTIVE)
    text = " ".join(repr(model).split())
    assert "PIDController(rtol=0.001, atol=0.001), gradient=Recursive(levels=3)" in text


def test_schemes_and_modes_are_spelled_as_they_are_built():
    for scheme, text in (
        (diffrax.HalfSolver(ide.LieTrotter()), "HalfSolver(LieTrotter(Euler()))"),
        (ide.Residual(ide.RK4()), "Residual(solver=RK4(), block=LieTrotter(Euler()))"),
        (ide.AdamsBashforth(3), "AdamsBashforth(steps=3)"),
        (ide.Recompute(policy=None), "Recompute(policy=None)"),
        (ide.GatedRK2(8), "GatedRK2(weight=[16], bias=[])"),
    ):
        assert spelled(scheme) == text


def test_trees_without_numbers():
    """Under transformations, and in the trees that JAX makes of a model."""
    model = filled(language_model)
    traced = []
    eqx.filter_eval_shape(lambda model: traced.append(repr(model)), model)
    assert traced == [repr(model)]
    ensemble = eqx.filter_eval_shape(eqx.filter_vmap(lambda _: model, axis_size=5), 0)
    with_flags = jax.tree.map(lambda _: True, model)
    for tree in (
        ensemble,
        eqx.filter_eval_shape(lambda x: x, model),
        eqx.filter(model, eqx.is_array, inverse=True),
        with_flags,
        eqx.tree_at(lambda x: (x.control, x.constraint), with_flags, (False, False)),
        eqx.tree_at(lambda x: x.discretization, with_flags, False),
    ):
        assert_short(repr(tree))
        assert repr(tree).startswith("Model")


@eqx.filter_jit
def solution_of(equation, u0, **options):
    return ide.solve(equation, u0, **options)


def test_a_solution_is_printed_and_pickled():
    saveat = diffrax.SaveAt(dense=True)
    solution = solution_of(make_equation(), random_state(), solver=ide.Strang(), saveat=saveat)
    copies = pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)
    evaluate = eqx.filter_jit(lambda solution: solution.evaluate(0.3))
    for one in (solution, *copies):
        text = repr(one)
        assert_short(text)
        for entry in ("status: succeeded", "steps: 3", "field evaluations: 9"):
            assert f"  {entry}\n" in text + "\n"
        assert (evaluate(one) == evaluate(solution)).all()


@pytest.mark.heavy
def test_solutions_that_failed():
    equation, scales = make_equation(), jnp.array([1.0, 1e-3])[:, None, None]
    options = {**ADAPTIVE, "max_steps": 5, "throw": False}
    solutions = jax.vmap(lambda u0: ide.solve(equation, u0, **options))(
        random_state(2) * scales
    )
    text = repr(solutions)
    assert_short(text)
    assert "1 of 2 samples failed at depth 0: The maximum number of solver steps" in text
    assert "steps: 3 to 5" in text
    first, second = (jax.tree.map(lambda x, i=i: x[i], solutions) for i in (0, 1))
    assert "status: succeeded" in repr(first)
    assert "status: failed at depth 0: The maximum" in repr(second)


def test_a_solution_that_is_traced():
    texts, equation = [], make_equation()

    def solve(u0):
        solution = ide.solve(equation, u0, solver=ide.Strang())
        texts.append(repr(solution))
        return solution

    shapes = jax.eval_shape(solve, random_state())
    assert_short(texts[0])
    assert "status: not known yet" in texts[0] and "u1: [6,16]" in texts[0]
    # Equal steps are counted without a solve.
    assert "steps: 3" in texts[0]
    assert "steps: []" in repr(shapes)


def test_gradient_modes_are_pickled():
    for gradient in (
        ide.Recompute(policy=jax.checkpoint_policies.dots_saveable),
        ide.Recursive(3),
        ide.Reversible(),
        diffrax.RecursiveCheckpointAdjoint(),
    ):
        x = ide.Discretization(ide.Strang(), gradient=gradient)
        for other in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
            assert eqx.tree_equal(other, x, typematch=True)
