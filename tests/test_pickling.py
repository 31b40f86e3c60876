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
from helpers import GOLDEN, fast_first, make_block, make_equation, random_state

import ide_transformer as ide
from ide_transformer.equation import spelled
from ide_transformer.studies.convergence import schemes


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
    diffrax.RecursiveCheckpointAdjoint(),
)
IMPLICIT = ("kvaerno3", "kvaerno4", "kvaerno5")
SCHEMES = {
    **{name: x.free or x.sphere for name, x in schemes().items() if name not in IMPLICIT},
    "steady_state": ide.SteadyState(),
    "projected": ide.projected(ide.Strang()),
}


def copies(x):
    """The object by way of pickle, and its deep copy."""
    return pickle.loads(pickle.dumps(x)), copy.deepcopy(x)


def assert_equal_copies(x):
    """Equal static parts and equal numbers: no function can tell the copies apart."""
    for other in copies(x):
        assert eqx.tree_equal(other, x, typematch=True)


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
    match model.inputs:
        case ide.EncodedInputs():
            stored = np.load(GOLDEN / "whisper/outputs.npz")
            return ide.SourceAndText(stored["features"], stored["tokens"])
        case ide.StageInputs():
            return np.linspace(-1, 1, 8 * 8 * 3).reshape(8, 8, 3)
        case ide.ImageInputs():
            shape = model.inputs.image_shape
            return np.linspace(-1, 1, np.prod(shape)).reshape(shape)
    return np.arange(8).reshape(2, 4)


FAMILIES = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


@pytest.mark.filterwarnings("ignore:.*not part of the model, so not read")
@pytest.mark.parametrize("family", fast_first(5, FAMILIES, heavy=4))
def test_checkpoints(family):
    assert_equal_copies(ide.load_pretrained(GOLDEN / family))


@pytest.mark.parametrize(
    "kind", fast_first(2, ["llama", "bert", "vit", "whisper", "classifier"], heavy=1)
)
def test_outputs_stay_to_the_bit(kind):
    model = classifier() if kind == "classifier" else ide.load_pretrained(GOLDEN / kind)
    evaluate = eqx.filter_jit(lambda model, inputs: model(inputs))
    expected = evaluate(model, inputs_of(model))
    for other in copies(model):
        assert eqx.tree_equal(evaluate(other, inputs_of(model)), expected)


@pytest.mark.parametrize("kind", fast_first(2, CONTROLS, heavy=1))
def test_equations(kind):
    assert_equal_copies(make_equation(kind, constraint=ide.Sphere()))


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_modes(gradient):
    assert_equal_copies(gradient)
    assert_equal_copies(ide.Discretization(ide.Strang(), gradient=gradient))


@pytest.mark.heavy
def test_gradients_stay_to_the_bit():
    equation = make_equation()

    def gradient(equation, mode):
        def loss(equation):
            u1 = ide.solve(equation, random_state(), solver=ide.LieTrotter(), gradient=mode).u1
            return jnp.sum(u1**2)

        return eqx.filter_jit(eqx.filter_grad(loss))(equation)

    expected = gradient(equation, ide.Recompute())
    for other in copies((equation, ide.Recompute())):
        assert eqx.tree_equal(gradient(*other), expected)


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes(name):
    assert_equal_copies(SCHEMES[name])


@pytest.mark.parametrize("name", IMPLICIT)
def test_implicit_schemes_of_diffrax(name):
    """Their root finder marks open tolerances by an object that equals itself alone."""
    scheme = schemes()[name].free
    assert {spelled(other) for other in copies(scheme)} == {spelled(scheme)}


@pytest.mark.heavy
def test_an_implicit_scheme_solves_the_same():
    equation = make_equation(ide.Tied, intervals=1)
    one, other = (
        ide.solve(equation, random_state(), solver=x).u1
        for x in (diffrax.Kvaerno3(), copies(diffrax.Kvaerno3())[0])
    )
    assert np.array_equal(one, other)


def test_a_solution():
    dense = diffrax.SaveAt(dense=True)
    solution = ide.solve(make_equation(), random_state(), solver=ide.Strang(), saveat=dense)
    evaluate = eqx.filter_jit(lambda solution: solution.evaluate(0.3))
    for other in copies(solution):
        assert other.succeeded and other.stats["steps"] == 3
        assert np.array_equal(evaluate(other), evaluate(solution))


@pytest.mark.heavy
def test_a_model_is_read_by_another_process(tmp_path):
    model = ide.load_pretrained(GOLDEN / "llama", dtype=jnp.float32)
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = (
        "import pickle, sys; model = pickle.load(open(sys.argv[1], 'rb')); "
        "print(model.inputs.context)"
    )
    command = [sys.executable, "-c", code, tmp_path / "model.pickle"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.strip() == str(model.inputs.context), found.stderr
