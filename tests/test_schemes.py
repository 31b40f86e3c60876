"""Orders of convergence and exact equality with the architectures, in float64."""

import functools as ft

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    WIDTH,
    largest,
    make_block,
    make_equation,
    observed_order,
    random_state,
)

import ide_transformer as ide


SCHEMES = {
    # name: (solver, order, numbers of steps in the asymptotic range)
    "euler": (diffrax.Euler(), 1, (16, 32, 64)),
    "lie_trotter(euler)": (ide.LieTrotter(diffrax.Euler()), 1, (16, 32, 64)),
    "lie_trotter(heun)": (ide.LieTrotter(diffrax.Heun()), 1, (16, 32, 64)),
    "strang(euler)": (ide.Strang(diffrax.Euler()), 1, (16, 32, 64)),
    "strang(heun)": (ide.Strang(diffrax.Heun()), 2, (8, 16, 32)),
    "strang(rk4)": (ide.Strang(ide.RK4()), 2, (8, 16, 32)),
    "heun": (diffrax.Heun(), 2, (8, 16, 32)),
    "midpoint": (diffrax.Midpoint(), 2, (8, 16, 32)),
    "bosh3": (diffrax.Bosh3(), 3, (8, 16, 32)),
    "rk4": (ide.RK4(), 4, (8, 16, 32)),
    "tsit5": (diffrax.Tsit5(), 5, (16, 24, 32)),
}


def reference(equation, u0):
    return ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=48).u1


@ft.cache
def problem(control):
    """An equation, a state and the solution; small weights bring the asymptotic range of
    order 5 above rounding."""
    equation = make_equation(control, intervals=2, std=0.15)
    return equation, random_state(), reference(equation, random_state())


@pytest.mark.parametrize("control", [ide.PiecewiseLinear, ide.PiecewiseConstant])
@pytest.mark.parametrize("name", SCHEMES)
def test_order(control, name):
    solver, order, steps = SCHEMES[name]
    equation, u0, exact = problem(control)

    def error(n):
        return largest(ide.solve(equation, u0, solver=solver, steps_per_interval=n).u1, exact)

    assert solver.order(equation.terms) == order
    assert abs(observed_order(error, steps) - order) < 0.15


@ft.cache
def problem_on(constraint):
    equation = make_equation(intervals=2, constraint=constraint(), normalization=ide.Free())
    u0 = constraint().project(random_state())
    solver = ide.Projected(diffrax.Dopri8())
    return equation, u0, ide.solve(equation, u0, solver=solver, steps_per_interval=96).u1


@pytest.mark.parametrize("constraint", [ide.Sphere, ide.RMSSphere])
@pytest.mark.parametrize(
    ("solver", "order", "steps"),
    [
        (ide.LieTrotter(ide.Projected(diffrax.Euler())), 1, (32, 64, 128)),
        (ide.Projected(ide.Strang(diffrax.Heun())), 2, (16, 32, 64)),
        (ide.Strang(ide.Projected(diffrax.Heun())), 2, (16, 32, 64)),
        (ide.Projected(diffrax.Heun()), 2, (16, 32, 64)),
        (ide.Projected(ide.RK4()), 4, (8, 16, 32)),
    ],
    ids=repr,
)
def test_order_on_the_sphere(constraint, solver, order, steps):
    equation, u0, exact = problem_on(constraint)

    def solution(n):
        return ide.solve(equation, u0, solver=solver, steps_per_interval=n)

    assert solver.order(equation.terms) == order
    observed = observed_order(lambda n: largest(solution(n).u1, exact), steps)
    assert abs(observed - order) < 0.15
    assert float(solution(steps[0]).stats["constraint_residual"]) < 1e-12


def test_strang_on_three_operators():
    """The sub-steps go up to the last operator and back."""
    assert ide.Strang().sub_steps(3) == [
        (0, 0.0, 0.5),
        (1, 0.0, 0.5),
        (2, 0.0, 1.0),
        (1, 0.5, 1.0),
        (0, 0.5, 1.0),
    ]
    equation = ide.Equation(three_operators(), ide.Free(), ide.TokenDomain.uniform(6))
    u0 = random_state()
    exact = reference(equation, u0)

    def error(n):
        solver = ide.Strang(diffrax.Heun())
        return largest(ide.solve(equation, u0, solver=solver, steps_per_interval=n).u1, exact)

    assert abs(observed_order(error, (8, 16, 32)) - 2) < 0.15


def three_operators():
    def block(key):
        first, second = jax.random.split(key)
        extra = ide.GatedFeedForward(WIDTH, key=second, normalization=ide.LayerNorm(), std=0.2)
        return (*make_block(first), extra)

    return ide.PiecewiseLinear.build(block, 2, key=jax.random.key(5))


# The blocks of Transformers, written out in NumPy.


def softmax(s):
    e = np.exp(s - s.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(u, gain=1.0, bias=0.0, eps=1e-5):
    mean = u.mean(-1, keepdims=True)
    return gain * (u - mean) / np.sqrt(u.var(-1, keepdims=True) + eps) + bias


def numpy_attention(operator, v):
    """Causal multi-head attention of a normalised input [tokens, features]."""
    heads, tokens = operator.heads, len(v)

    def split(linear):
        x = v @ np.asarray(linear.weight) + np.asarray(linear.bias)
        return x.reshape(tokens, heads, -1).transpose(1, 0, 2)

    q, k, value = split(operator.query), split(operator.key), split(operator.value)
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])
    scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    mixed = (softmax(scores) @ value).transpose(1, 0, 2).reshape(tokens, -1)
    return mixed @ np.asarray(operator.output.weight) + np.asarray(operator.output.bias)


def numpy_feed_forward(operator, v):
    from math import erf

    x = v @ np.asarray(operator.inner.weight) + np.asarray(operator.inner.bias)
    gelu = x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    return gelu @ np.asarray(operator.outer.weight) + np.asarray(operator.outer.bias)


def pre_norm_block(attention, feed_forward, u, norms):
    u = u + numpy_attention(attention, layer_norm(u))
    return u + numpy_feed_forward(feed_forward, layer_norm(u))


def parallel_block(attention, feed_forward, u, norms):
    v = layer_norm(u)
    return u + numpy_attention(attention, v) + numpy_feed_forward(feed_forward, v)


def macaron_block(attention, feed_forward, u, norms):
    """Half a feed-forward, attention, half a feed-forward."""
    u = u + 0.5 * numpy_feed_forward(feed_forward, layer_norm(u))
    u = u + numpy_attention(attention, layer_norm(u))
    return u + 0.5 * numpy_feed_forward(feed_forward, layer_norm(u))


def post_norm_block(attention, feed_forward, u, norms):
    u = layer_norm(u + numpy_attention(attention, u), *norms[0])
    return layer_norm(u + numpy_feed_forward(feed_forward, u), *norms[1])


def by_blocks(equation, u0, block):
    """The Transformer, layer by layer, in NumPy."""
    u = np.asarray(u0, dtype=float)
    for layer in range(equation.control.num_intervals):
        operators = equation.control(float(layer))
        attention, feed_forward = sorted(operators, key=lambda x: type(x).__name__)
        norms = equation.constraint(float(layer))
        if isinstance(norms, tuple):
            norms = [(np.asarray(n.gain), np.asarray(n.bias)) for n in norms]
        else:
            norms = [(1.0, 0.0)] * 2
        u = block(attention, feed_forward, u, norms)
    return u


def feed_forward_first(equation):
    control = ide.PiecewiseConstant(equation.control.blocks[::-1])
    return ide.Equation(control, ide.Free(), equation.domain)


def with_layer_norms(equation):
    """Post-norm with a gain and a bias of its own for each operator and layer."""
    gains = 1 + 0.3 * jax.random.normal(jax.random.key(7), (2, 3, WIDTH))
    biases = 0.3 * jax.random.normal(jax.random.key(8), (2, 3, WIDTH))
    norms = tuple(ide.LayerNorm(gains[i], biases[i]) for i in range(2))
    return ide.Equation(equation.control, ide.PiecewiseConstant(norms), equation.domain)


ARCHITECTURES = {
    "unsplit Euler is the parallel block": (diffrax.Euler(), parallel_block, {}),
    "Lie–Trotter(Euler) is the pre-norm block": (ide.LieTrotter(), pre_norm_block, {}),
    "Strang(Euler) is the Macaron net": (
        ide.Strang(diffrax.Euler()),
        macaron_block,
        {"change": feed_forward_first},
    ),
    "Lie–Trotter(Euler) on the sphere is the post-norm block": (
        ide.LieTrotter(ide.Projected(diffrax.Euler())),
        post_norm_block,
        {"constraint": ide.Sphere(eps=1e-5), "normalization": ide.Free()},
    ),
    "Lie–Trotter(Euler) with layer norms is the post-norm block": (
        ide.LieTrotter(ide.Projected(diffrax.Euler())),
        post_norm_block,
        {"normalization": ide.Free(), "change": with_layer_norms},
    ),
}


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float64, 1e-12), (jnp.float32, 1e-5)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(name, dtype, bound):
    solver, block, options = ARCHITECTURES[name]
    options = dict(options)
    change = options.pop("change", lambda equation: equation)
    equation = change(make_equation(**options))
    u0 = random_state()
    expected = by_blocks(equation, u0, block)
    equation, u0 = jax.tree.map(
        lambda x: x.astype(dtype) if isinstance(x, jax.Array) else x, (equation, u0)
    )
    u1 = ide.solve(equation, u0, solver=solver).u1
    assert u1.dtype == dtype
    assert largest(u1, expected) < bound * max(1, np.abs(expected).max())


def test_macaron_runs_over_the_same_weights_in_another_order():
    """The feed-forward is outside because it is the first operator of the block."""
    equation = make_equation()
    inside = ide.solve(equation, random_state(), solver=ide.Strang(diffrax.Euler())).u1
    outside = by_blocks(equation, random_state(), macaron_block)
    assert largest(inside, outside) > 1e-3


def test_splitting_cannot_split_a_single_operator():
    with pytest.raises(ide.InputError, match="cannot be split again"):
        ide.LieTrotter(ide.Strang())


def test_splitting_needs_a_sum():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    with pytest.raises(ide.InputError, match="splits a sum of operators"):
        ide.LieTrotter().init(term, 0.0, 1.0, jnp.ones(3), None)


def test_projected_needs_an_equation():
    term = diffrax.ODETerm(lambda t, y, args: -y)
    with pytest.raises(ide.InputError, match="terms of an Equation"):
        diffrax.diffeqsolve(term, ide.Projected(diffrax.Euler()), 0.0, 1.0, 0.1, jnp.ones(3))
