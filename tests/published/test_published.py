"""Each architecture of configs/schemes/ against its published block, written out in NumPy: the
model of the configuration, narrower, in float64, over its whole depth. And the formulas of Tai,
Liu, Li and Chan (arXiv 2510.03989) as they print them, those that no other test has."""

from types import SimpleNamespace

import diffrax
import equinox as eqx
import jax
import numpy as np
import pytest

import ide_transformer as ide
from ide_transformer import training
from ide_transformer.equation import with_source
from tests.equation.problems import attended, block_at, computed, project, softmax_kernel
from tests.helpers import ROOT, built, drawn, fast_first, filled, largest
from tests.published.architectures import PUBLISHED
from tests.published.numpy_blocks import attention, layer_norm, linear
from tests.solvers.linear_problem import final, initial_state, layered_equation, matrices


SCHEMES = ROOT / "configs/schemes"
PLACES, WIDE, LAYERS = 5, 16, 3
NARROW = [f"model.width={WIDE}", "model.heads=2"]
COEFFICIENTS = np.random.default_rng(1).uniform(0.3, 0.9, size=(3, LAYERS, 2))
SIZES = LAYERS, 2, 4


def random_weights(shapes):
    """Normal numbers, around one in gains: errors would not show where those are ones."""

    def moved(path, x):
        gain = "gain" in jax.tree_util.keystr(path) and eqx.is_inexact_array(x)
        return jax.device_put(1 + np.asarray(x)) if gain else x

    return jax.tree_util.tree_map_with_path(moved, filled(shapes, 0.1, seed=0))


def scheme(kind, *options):
    return random_weights(eqx.filter_eval_shape(kind, *options))


# The schemes with learned coefficients, on matrices, which compile quickly.
ON_MATRICES = {
    "ode_transformer_rk2": ide.solvers.Residual(scheme(ide.contrib.GatedRK2, 4)),
    "ode_transformer_rk4": ide.solvers.Residual(),
    "yuriiformer": ide.contrib.Nesterov(*COEFFICIENTS, normalization=ide.LayerNorm()),
    "sympformer": ide.contrib.PresymplecticEuler(
        *COEFFICIENTS[:2], normalization=ide.LayerNorm()
    ),
    "dense_former": scheme(ide.contrib.LearnedMultistep, LAYERS),
    "attention_residual": scheme(ide.contrib.AttentionResidual, *SIZES),
    "hyper_connections": scheme(ide.contrib.HyperConnections, *SIZES),
    "doubly_stochastic_connections": scheme(ide.contrib.DoublyStochasticConnections, *SIZES),
}


@pytest.mark.parametrize("name", ON_MATRICES)
def test_published_scheme_on_matrices(name):
    fields, u0 = matrices(2, layers=LAYERS), np.asarray(initial_state())
    blocks = [
        tuple(lambda u, m=fields[k, layer]: u @ m for k in range(2)) for layer in range(LAYERS)
    ]
    solver, equation = ON_MATRICES[name], layered_equation(layers=LAYERS)
    inputs = SimpleNamespace(velocity=np.zeros_like(u0))
    tokens = (slice(None),) if name == "yuriiformer" else ()
    expected = PUBLISHED[name](
        blocks, u0, SimpleNamespace(solver=solver, inputs=inputs), *tokens
    )
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
        sizes, inputs = {"vocabulary": 20}, random.integers(0, 20, PLACES)
    options = config, sizes, jax.random.key(3)
    model = random_weights(eqx.filter_eval_shape(training.build_model_of_size, *options))
    if isinstance(model.solver, ide.contrib.SteadyState):
        # Iteration has to find the fixed point of its own weights.
        model = training.build_model_of_size(*options)
        return model.with_solver(ide.contrib.SteadyState(model.solver.solver, 1e-13)), inputs
    # Also where the steps of the configuration are adaptive: here they are of length one.
    return model.on(ide.Mesh(steps=1)), inputs


def test_every_architecture_is_here():
    assert {path.stem for path in SCHEMES.glob("*.yaml")} == set(PUBLISHED)


FAST = ["transformer_postnorm", "paper_encoder"]


@pytest.mark.parametrize(
    "name", fast_first(len(FAST), dict.fromkeys([*FAST, *PUBLISHED]), heavy=2)
)
def test_published_block(name):
    model, inputs = build(name)
    u0, domain, velocity, *_ = computed(model.inputs.embed, inputs)
    equation = ide.Equation(with_source(model.control, u0), model.constraint, domain)
    u1 = solve(equation, u0, solver=model.solver, args=velocity).u1
    blocks = [block_at(model.control, n) for n in range(model.control.layers)]
    if model.control.interval_length != 1:
        blocks = [block_at(model.control, 0)] * model.control.layers
    tokens = () if velocity is None else (inputs,)
    expected = PUBLISHED[name](blocks, np.asarray(u0), model, *tokens)
    assert largest(u1, u0) > 1e-2
    assert largest(u1, expected) < 1e-12 * max(1, np.abs(expected).max())


def test_the_published_cell_of_the_deep_equilibrium_transformer():
    """Post-norm, without affine parameters, the input injected into queries, keys and
    values: one step of the scheme is the cell."""
    key = jax.random.key(0)

    def operators():
        attend = ide.SourcedAttention(ide.Attention(WIDE, 4, key=key), key=key, std=0.2)
        return attend, ide.FeedForward(WIDE, key=key, activation=ide.relu)

    a, f = built(operators, std=0.2)
    u0, z = drawn((PLACES, WIDE), seed=1), drawn((PLACES, WIDE), seed=2)
    control = ide.equation.Sourced(ide.Tied((a, f), 1), u0)
    equation = ide.Equation(control, ide.Sphere(eps=1e-5), ide.TokenDomain.uniform(PLACES))
    u1 = solve(equation, z, solver=ide.LieTrotter(ide.Projected(diffrax.Euler()))).u1
    shift = np.asarray(u0) @ np.asarray(a.source_map.weight)
    z = np.asarray(z)
    h = layer_norm(z + attention(a.attention, z, causal=False, shift=shift))
    expected = layer_norm(h + linear(f.outer, np.maximum(linear(f.inner, h), 0)))
    assert largest(u1, expected) < 1e-12


TOKENS, WIDTH, HEADS = 5, 6, 3
MEAN, DEVIATION = 0.5, 2.0
KEY = jax.random.key(0)
S1 = ide.Sphere(gain=DEVIATION, bias=MEAN)


def state(seed=0, tokens=TOKENS, width=WIDTH):
    return np.random.default_rng(seed).normal(size=(tokens, width))


def make_attention(seed=0):
    return built(lambda: ide.Attention(WIDTH, HEADS, key=KEY), seed=seed)


def attention_integral(operator, u):
    """`∫_Ωh ⟨γ(x,·,h), V(·,y,h)⟩_Ωx dh`, V with the output map in it."""
    return attended(operator, u, u, u, 1.0, softmax_kernel)


def feature_integral(operator, u):
    """`⟨W(·,y), u(x,·)⟩_Ωy + b(y)`, one y after the other."""
    weight, bias = np.asarray(operator.map.weight), np.asarray(operator.map.bias)
    terms = [(u * weight[:, y]).sum(-1) + bias[y] for y in range(WIDTH)]
    return np.stack(terms, axis=-1)


def onto_s1(v):
    """Theorem 3.1."""
    alpha = v.mean(-1, keepdims=True)
    beta = ((v - alpha) ** 2).mean(-1, keepdims=True)
    return (v - alpha) / np.sqrt(beta) * DEVIATION + MEAN


def layers_of(num_integrals, depth=2):
    """An attention and integrals over features, others in each layer; all layers stacked."""
    layers = [
        (
            make_attention(n),
            *(
                built(lambda: ide.equation.FeatureIntegral(WIDTH, key=KEY), seed=10 * n + j)
                for j in range(num_integrals)
            ),
        )
        for n in range(depth)
    ]
    stacked = jax.tree.map(lambda *x: jax.device_put(np.stack(x)), *layers)
    return layers, ide.PiecewiseConstant(stacked)


def test_the_rate_is_the_sum_of_the_terms_and_of_what_keeps_the_constraint():
    """`∂I_S1` takes away what is normal to S1: the mean, and the part along `u - σ1`."""
    layers, control = layers_of(2)
    u, domain = onto_s1(state()), ide.TokenDomain.uniform(TOKENS)
    block = layers[1]
    total = attention_integral(block[0], u) + sum(feature_integral(x, u) for x in block[1:])
    normal = u - MEAN
    along = (total * normal).sum(-1, keepdims=True) / (normal**2).sum(-1, keepdims=True)
    tangential = total - total.mean(-1, keepdims=True) - along * normal
    for constraint, expected in ((ide.Free(), total), (S1, tangential)):
        equation = ide.Equation(control, constraint, domain)
        rate = eqx.filter_jit(equation.vector_field)(1.3, u)
        assert largest(rate, expected) < 1e-12


def test_projections_as_printed():
    """None of the points of the set around the projection is nearer; with a gain γ for each
    feature that is so in `mean_y (v/γ)²`, not in the Euclidean distance."""
    v, moves = state(), 1e-3 * np.random.default_rng(1).normal(size=(500, TOKENS, WIDTH))
    for constraint, printed in ((S1, onto_s1), (ide.Nonnegative(), lambda v: np.maximum(v, 0))):
        projected = np.asarray(project(constraint, v))
        assert largest(projected, printed(v)) < 1e-12
        distances = np.linalg.norm(printed(projected + moves) - v, axis=-1)
        assert (distances > np.linalg.norm(projected - v, axis=-1) - 1e-14).all()
    gain = np.linspace(0.5, 3.0, WIDTH)
    sphere = ide.Sphere(jax.device_put(gain), jax.device_put(np.full(WIDTH, 0.3)))
    nearest = np.asarray(project(sphere, v))
    points_of_the_set = np.asarray(project(sphere, nearest + 100 * moves))
    for metric, is_nearest in ((gain, True), (1.0, False)):
        gaps = np.linalg.norm((points_of_the_set - v) / metric, axis=-1)
        assert (gaps > np.linalg.norm((nearest - v) / metric, axis=-1)).all() == is_nearest


def one_step(solver, equation, u, h):
    terms = equation.terms_of(1)
    return eqx.filter_jit(lambda u: ide.solvers.single_step(solver, terms, 1.0, 1.0 + h, u))(u)


@pytest.mark.parametrize(
    "scheme", [ide.solvers.PaperSplitting, ide.solvers.ConsistentPaperSplitting]
)
def test_the_sub_steps_of_the_paper(scheme):
    """M = 4 + J, with a step that is not one: feed-forward sub-steps are projected on S2,
    the last of them is not; in the consistent variant they are twice as long and none is."""
    layers, control = layers_of(3)
    (operator, *integrals), u0, h = layers[1], onto_s1(state()), 0.3
    printed = scheme is ide.solvers.PaperSplitting
    attended = onto_s1(u0 + h * attention_integral(operator, u0))
    u = attended
    for j, integral in enumerate(integrals, 1):
        u = u + (h if printed else 2 * h) * feature_integral(integral, u)
        u = np.maximum(u, 0) if printed and j < 3 else u
    expected = onto_s1((attended + u) / 2)
    equation = ide.Equation(control, S1, ide.TokenDomain.uniform(TOKENS))
    assert largest(one_step(scheme(), equation, u0, h), expected) < 1e-12


def test_sequential_and_parallel_splitting():
    """With Heun in the sub-steps, where parallel splitting is no longer unsplit Euler."""
    layers, control = layers_of(2)
    sequential, u0, h = state(), state(), 0.3
    rates = [lambda u: attention_integral(layers[1][0], u)]
    rates += [lambda u, x=x: feature_integral(x, u) for x in layers[1][1:]]

    def heun(rate, u, h):
        first = h * rate(u)
        return u + (first + h * rate(u + first)) / 2

    for rate in rates:
        sequential = heun(rate, sequential, h)
    parallel = np.mean([heun(rate, u0, 3 * h) for rate in rates], axis=0)
    equation = ide.Equation(control, ide.Free(), ide.TokenDomain.uniform(TOKENS))
    for scheme, expected in ((ide.LieTrotter, sequential), (ide.ParallelSplitting, parallel)):
        assert largest(one_step(scheme(diffrax.Heun()), equation, u0, h), expected) < 1e-12
