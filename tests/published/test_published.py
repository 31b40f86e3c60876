"""Each architecture of configs/schemes/ against its published block, written out in NumPy:
the model of the configuration, narrower, in float64, over its whole depth."""

import json
from types import SimpleNamespace

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.problems import block_at, made
from helpers import ROOT, drawn, fast_first, largest
from published.architectures import PUBLISHED
from published.numpy_blocks import attention, layer_norm, linear
from running import run_here
from solvers.linear_problem import final, initial_state, layered_equation, matrices

import ide_transformer as ide
from ide_transformer import solvers, training
from ide_transformer.equation import with_source


SCHEMES = ROOT / "configs/schemes"
TOKENS, WIDTH, LAYERS = 5, 16, 3
NARROW = [f"model.width={WIDTH}", "model.heads=2"]
COEFFICIENTS = np.random.default_rng(1).uniform(0.3, 0.9, size=(3, LAYERS, 2))
SIZES = LAYERS, 2, 4


def moved(tree):
    """Gains, biases and coefficients away from the values at which errors would not show."""

    def away(x):
        if not eqx.is_inexact_array(x):
            return x
        random, x = np.random.default_rng(x.size), np.asarray(x)
        x = x + 0.1 * x.std() * random.standard_normal(x.shape)
        small = x.ndim < 3 or not x.any()
        return jnp.asarray(x + 0.1 * random.standard_normal(x.shape) if small else x)

    return jax.tree.map(away, tree)


# The schemes with learned coefficients, on matrices, which compile quickly.
ON_MATRICES = {
    "parallel_block": ide.ParallelSplitting(),
    "ode_transformer_rk2": ide.Residual(moved(ide.GatedRK2(4))),
    "ode_transformer_rk4": ide.Residual(),
    "yuriiformer": ide.Nesterov(*COEFFICIENTS, normalization=ide.LayerNorm()),
    "sympformer": ide.PresymplecticEuler(*COEFFICIENTS[:2], normalization=ide.LayerNorm()),
    "dense_former": moved(ide.LearnedMultistep(LAYERS)),
    "attention_residual": moved(ide.AttentionResidual(*SIZES)),
    "hyper_connections": moved(ide.HyperConnections(*SIZES)),
    "doubly_stochastic_connections": moved(ide.DoublyStochasticConnections(*SIZES)),
}


@pytest.mark.parametrize("name", ON_MATRICES)
def test_published_scheme_on_matrices(name):
    fields, u0 = matrices(2, layers=LAYERS), np.asarray(initial_state())
    blocks = [
        tuple(lambda u, m=fields[k, layer]: u @ m for k in range(2)) for layer in range(LAYERS)
    ]
    solver, equation = ON_MATRICES[name], layered_equation(layers=LAYERS)
    inputs = SimpleNamespace(velocity=np.zeros_like(u0))
    own = (slice(None),) if name == "yuriiformer" else ()
    expected = PUBLISHED[name](blocks, u0, SimpleNamespace(solver=solver, inputs=inputs), *own)
    assert largest(final(equation, solver), expected) < 1e-12


@pytest.mark.parametrize("kind", [ide.LearnedMultistep, ide.HyperConnections])
def test_two_of_them_start_as_lie_trotter(kind):
    solver = kind(*SIZES[: 1 if kind is ide.LearnedMultistep else 3])
    equation = layered_equation(layers=LAYERS)
    assert largest(final(equation, solver), final(equation, ide.LieTrotter())) < 1e-13


def build(name):
    """The model of a configuration, and a random input of it."""
    config = training.load_config(SCHEMES / f"{name}.yaml", [*NARROW, "model.std=0.1"])
    random = np.random.default_rng(0)
    if config.data.name == "digits":
        sizes = {"image_shape": (8, 8, 1), "classes": 10}
        inputs = random.standard_normal((8, 8, 1))
    else:
        sizes, inputs = {"vocabulary": 20}, random.integers(0, 20, TOKENS)
    model = training.build_model_of_size(config, sizes, jax.random.key(3))
    if isinstance(model.solver, solvers.SteadyState):
        # Its weights stay: iteration has to find the fixed point.
        return model.with_solver(solvers.SteadyState(model.solver.solver, 1e-13)), inputs

    def parts(m):
        return m.control, m.constraint, m.discretization.solver

    model = eqx.tree_at(parts, model, moved(parts(model)))
    # Also where the steps of the configuration are adaptive: here they are of length one.
    return model.with_solver(model.solver), inputs


def test_every_architecture_is_here():
    assert {path.stem for path in SCHEMES.glob("*.yaml")} == set(PUBLISHED)


FAST = ["transformer_postnorm", "macaron", "paper_encoder"]


@pytest.mark.parametrize(
    "name", fast_first(len(FAST), dict.fromkeys([*FAST, *PUBLISHED]), heavy=2)
)
def test_published_block(name):
    model, inputs = build(name)
    u0, domain = made(model.embed, inputs)
    assert u0.dtype == jnp.float64
    equation = ide.Equation(with_source(model.control, u0), model.constraint, domain)
    velocity = model.inputs.embed(inputs).velocity
    solve = eqx.filter_jit(ide.solve)
    u1 = solve(equation, u0, solver=model.solver, args=velocity).u1
    blocks = [block_at(model.control, n) for n in range(model.control.num_intervals)]
    if model.control.interval_length != 1:
        blocks = [block_at(model.control, 0)] * model.control.num_intervals
    own = () if velocity is None else (inputs,)
    expected = PUBLISHED[name](blocks, np.asarray(u0), model, *own)
    assert largest(u1, u0) > 1e-2
    assert largest(u1, expected) < 1e-12 * max(1, np.abs(expected).max())


def test_the_published_cell_of_the_deep_equilibrium_transformer():
    """Post-norm, without affine parameters, the input injected into queries, keys and
    values: one step of the scheme is the cell."""
    keys = jax.random.split(jax.random.key(0), 3)
    a = ide.SourcedAttention(
        ide.Attention(WIDTH, 4, key=keys[0], std=0.2), key=keys[1], std=0.2
    )
    f = ide.FeedForward(WIDTH, key=keys[2], activation=ide.relu, std=0.2)
    u0, z = drawn((TOKENS, WIDTH), seed=1), drawn((TOKENS, WIDTH), seed=2)
    control = ide.Sourced(ide.Tied((a, f), 1), u0)
    equation = ide.Equation(control, ide.Sphere(eps=1e-5), ide.TokenDomain.uniform(TOKENS))
    cell = ide.LieTrotter(ide.Projected(diffrax.Euler()))
    u1 = ide.solve(equation, z, solver=cell).u1
    shift = np.asarray(u0) @ np.asarray(a.source_map.weight)
    z = np.asarray(z)
    h = layer_norm(z + attention(a.attention, z, causal=False, shift=shift))
    expected = layer_norm(h + linear(f.outer, np.maximum(linear(f.inner, h), 0)))
    assert largest(u1, expected) < 1e-12


@pytest.mark.parametrize("name", fast_first(0, PUBLISHED, heavy=1))
@pytest.mark.heavy
def test_the_configuration_trains(name, tmp_path, capsys, unchecked):
    """Two steps through the script, as a user would."""
    overrides = []
    if "name: shakespeare" in (SCHEMES / f"{name}.yaml").read_text():
        # Few samples: a run ends with the loss of all that are held out.
        text = tmp_path / "text.txt"
        text.write_text("To be, or not to be, that is the question. " * 40)
        overrides = ["data.name=text", f"data.path={text}"]
    run_here(
        capsys,
        *("train.py", SCHEMES / f"{name}.yaml", "--runs", tmp_path),
        *("training.steps=2", "optimizer.warmup=1", "training.log_every=1"),
        *("training.batch_size=4", "training.evaluate_samples=4", "training.sample=0"),
        *("model.context=16", *NARROW, *overrides),
    )
    lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "gradient_norm" in line]
    assert len(losses) == 2 and all(np.isfinite(losses))
