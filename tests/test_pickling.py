"""Models, equations, schemes, gradient modes and solutions are pickled and copied."""

import copy
import pickle
import subprocess
import sys

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import GOLDEN, make_block, make_equation, random_state

import ide_transformer as ide
from ide_transformer.equation import spelled
from ide_transformer.studies.convergence import schemes


COPIES = {"pickle": lambda x: pickle.loads(pickle.dumps(x)), "deepcopy": copy.deepcopy}

CONTROLS = (
    ide.PiecewiseConstant,
    ide.PiecewiseLinear,
    ide.Chebyshev,
    ide.Fourier,
    ide.Hypernetwork,
    ide.Tied,
)
GRADIENTS = (
    ide.Recompute(),
    ide.Recompute(policy=None),
    ide.Recompute(policy=jax.checkpoint_policies.dots_saveable),
    ide.Recursive(3),
    ide.Direct(),
    ide.Reversible(),
)
IMPLICIT = ("kvaerno3", "kvaerno4", "kvaerno5")


@pytest.fixture(params=COPIES)
def copied(request):
    return COPIES[request.param]


def classifier():
    control = ide.PiecewiseConstant.build(
        lambda key: make_block(key, causal=False), 2, key=jax.random.key(0)
    )
    return ide.ImageClassifier(
        (8, 8, 1),
        4,
        3,
        16,
        control=control,
        constraint=ide.Sphere(),
        discretization=ide.Discretization(ide.LieTrotter(ide.Projected(diffrax.Euler()))),
        key=jax.random.key(1),
        class_token=True,
    )


def inputs_of(model):
    match model:
        case ide.EncoderDecoder():
            stored = np.load(GOLDEN / "whisper/outputs.npz")
            return ide.SourceAndText(stored["features"], stored["tokens"])
        case ide.ImageClassifier() | ide.ImageEncoder():
            return np.linspace(-1, 1, np.prod(model.image_shape)).reshape(model.image_shape)
    return np.arange(8).reshape(2, 4)


FAMILIES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoints(family, copied):
    model = ide.load_pretrained(GOLDEN / family)
    # Equal static parts and equal numbers: no function can tell the two apart.
    assert eqx.tree_equal(copied(model), model, typematch=True)


@pytest.mark.parametrize("kind", ["llama", "bert", "vit", "whisper", "classifier"])
def test_outputs_stay_to_the_bit(kind, copied):
    model = classifier() if kind == "classifier" else ide.load_pretrained(GOLDEN / kind)
    evaluate = eqx.filter_jit(lambda model, inputs: model(inputs))
    expected = evaluate(model, inputs_of(model))
    found = evaluate(copied(model), inputs_of(model))
    assert eqx.tree_equal(found, expected)


@pytest.mark.parametrize("kind", CONTROLS)
def test_equations(kind, copied):
    equation = make_equation(kind, constraint=ide.Sphere())
    assert eqx.tree_equal(copied(equation), equation, typematch=True)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=repr)
def test_gradient_modes(gradient, copied):
    assert copied(gradient) == gradient
    discretization = ide.Discretization(ide.Strang(), gradient=gradient)
    assert eqx.tree_equal(copied(discretization), discretization, typematch=True)


def test_gradients_stay_to_the_bit(copied):
    equation = make_equation()

    def gradient(equation, mode):
        def loss(equation):
            u1 = ide.solve(equation, random_state(), solver=ide.LieTrotter(), gradient=mode).u1
            return jnp.sum(u1**2)

        return eqx.filter_jit(eqx.filter_grad(loss))(equation)

    expected = gradient(equation, ide.Recompute())
    assert eqx.tree_equal(gradient(copied(equation), copied(ide.Recompute())), expected)


@pytest.mark.parametrize("name", [name for name in schemes() if name not in IMPLICIT])
def test_schemes(name, copied):
    scheme = schemes()[name].free or schemes()[name].sphere
    assert eqx.tree_equal(copied(scheme), scheme, typematch=True)


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_schemes_of_diffrax(name, copied):
    """Their root finder marks open tolerances by an object that equals itself alone."""
    scheme = schemes()[name].free
    assert spelled(copied(scheme)) == spelled(scheme)


def test_an_implicit_scheme_solves_the_same(copied):
    equation = make_equation(ide.Tied, intervals=1)
    one, other = (
        ide.solve(equation, random_state(), solver=x).u1
        for x in (diffrax.Kvaerno3(), copied(diffrax.Kvaerno3()))
    )
    assert np.array_equal(one, other)


def test_a_solution(copied):
    dense = diffrax.SaveAt(dense=True)
    solution = ide.solve(make_equation(), random_state(), solver=ide.Strang(), saveat=dense)
    other = copied(solution)
    assert other.succeeded and other.stats["steps"] == 3
    assert np.array_equal(other.evaluate(0.3), solution.evaluate(0.3))


def test_a_model_is_read_by_another_process(tmp_path):
    model = ide.load_pretrained(GOLDEN / "llama", dtype=jnp.float32)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = (
        "import pickle, sys; model = pickle.load(open(sys.argv[1], 'rb')); print(model.context)"
    )
    command = [sys.executable, "-c", code, tmp_path / "model.pickle"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.strip() == str(model.context), found.stderr
