"""Each architecture of configs/schemes/ against its published block, written out in NumPy:
the model of the configuration, narrower, in float64, over its whole depth."""

from types import SimpleNamespace

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest
from equation.problems import block_at, made
from helpers import ROOT, built, drawn, fast_first, largest
from published.architectures import PUBLISHED
from published.numpy_blocks import attention, layer_norm, linear
from solvers.linear_problem import final, initial_state, layered_equation, matrices

import ide_transformer as ide
from ide_transformer import solvers, training
from ide_transformer.equation import with_source


SCHEMES = ROOT / "configs/schemes"
TOKENS, WIDTH, LAYERS = 5, 16, 3
NARROW = [f"model.width={WIDTH}", "model.heads=2"]
COEFFICIENTS = np.random.default_rng(1).uniform(0.3, 0.9, size=(3, LAYERS, 2))
SIZES = LAYERS, 2, 4


def random_weights(shapes):
    """Normal numbers in the place of shapes, around one in gains: errors would not show where
    those are ones, and biases and coefficients zeros."""
    random = np.random.default_rng(0)

    def drawn(path, x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        around = float("gain" in jax.tree_util.keystr(path))
        return jax.device_put(around + 0.1 * random.standard_normal(x.shape))

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def scheme(kind, *options):
    return random_weights(eqx.filter_eval_shape(kind, *options))


# The schemes with learned coefficients, on matrices, which compile quickly.
ON_MATRICES = {
    "ode_transformer_rk2": ide.Residual(scheme(ide.GatedRK2, 4)),
    "ode_transformer_rk4": ide.Residual(),
    "yuriiformer": ide.Nesterov(*COEFFICIENTS, normalization=ide.LayerNorm()),
    "sympformer": ide.PresymplecticEuler(*COEFFICIENTS[:2], normalization=ide.LayerNorm()),
    "dense_former": scheme(ide.LearnedMultistep, LAYERS),
    "attention_residual": scheme(ide.AttentionResidual, *SIZES),
    "hyper_connections": scheme(ide.HyperConnections, *SIZES),
    "doubly_stochastic_connections": scheme(ide.DoublyStochasticConnections, *SIZES),
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


@eqx.filter_jit
def solve(equation, u0, **options):
    return ide.solve(equation, u0, **options)


def build(name):
    """The model of a configuration, and a random input of it."""
    config = training.load_config(SCHEMES / f"{name}.yaml", [*NARROW, "model.std=0.1"])
    random = np.random.default_rng(0)
    if config.data.name == "digits":
        sizes = {"image_shape": (8, 8, 1), "classes": 10}
        inputs = random.standard_normal((8, 8, 1))
    else:
        sizes, inputs = {"vocabulary": 20}, random.integers(0, 20, TOKENS)
    options = config, sizes, jax.random.key(3)
    model = random_weights(eqx.filter_eval_shape(training.build_model_of_size, *options))
    if isinstance(model.solver, solvers.SteadyState):
        # Iteration has to find the fixed point of its own weights.
        model = training.build_model_of_size(*options)
        return model.with_solver(solvers.SteadyState(model.solver.solver, 1e-13)), inputs
    # Also where the steps of the configuration are adaptive: here they are of length one.
    return model.with_solver(model.solver), inputs


def test_every_architecture_is_here():
    assert {path.stem for path in SCHEMES.glob("*.yaml")} == set(PUBLISHED)


FAST = ["transformer_postnorm", "paper_encoder"]


@pytest.mark.parametrize(
    "name", fast_first(len(FAST), dict.fromkeys([*FAST, *PUBLISHED]), heavy=2)
)
def test_published_block(name):
    model, inputs = build(name)
    u0, domain, velocity, *_ = made(model.inputs.embed, inputs)
    equation = ide.Equation(with_source(model.control, u0), model.constraint, domain)
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
    key = jax.random.key(0)

    def operators():
        attend = ide.SourcedAttention(ide.Attention(WIDTH, 4, key=key), key=key, std=0.2)
        return attend, ide.FeedForward(WIDTH, key=key, activation=ide.relu)

    a, f = built(operators, std=0.2)
    u0, z = drawn((TOKENS, WIDTH), seed=1), drawn((TOKENS, WIDTH), seed=2)
    control = ide.Sourced(ide.Tied((a, f), 1), u0)
    equation = ide.Equation(control, ide.Sphere(eps=1e-5), ide.TokenDomain.uniform(TOKENS))
    u1 = solve(equation, z, solver=ide.LieTrotter(ide.Projected(diffrax.Euler()))).u1
    shift = np.asarray(u0) @ np.asarray(a.source_map.weight)
    z = np.asarray(z)
    h = layer_norm(z + attention(a.attention, z, causal=False, shift=shift))
    expected = layer_norm(h + linear(f.outer, np.maximum(linear(f.inner, h), 0)))
    assert largest(u1, expected) < 1e-12
