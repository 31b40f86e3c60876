"""Splittings, and exact equality with the architectures that they are, in float64."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    TOKENS,
    WIDTH,
    largest,
    make_block,
    make_equation,
    observed_order,
    random_state,
)
from published.numpy_blocks import attention, feed_forward, layer_norm

import ide_transformer as ide


def reference(equation, u0):
    return ide.solve(equation, u0, solver=diffrax.Dopri8(), steps_per_interval=48).u1


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


def pre_norm_block(a, f, u, norms):
    u = u + attention(a, layer_norm(u))
    return u + feed_forward(f, layer_norm(u))


def parallel_block(a, f, u, norms):
    v = layer_norm(u)
    return u + attention(a, v) + feed_forward(f, v)


def macaron_block(a, f, u, norms):
    """Half a feed-forward, attention, half a feed-forward."""
    u = u + 0.5 * feed_forward(f, layer_norm(u))
    u = u + attention(a, layer_norm(u))
    return u + 0.5 * feed_forward(f, layer_norm(u))


def post_norm_block(a, f, u, norms):
    u = layer_norm(u + attention(a, u), *norms[0])
    return layer_norm(u + feed_forward(f, u), *norms[1])


def by_blocks(equation, u0, block):
    """The Transformer, layer by layer, in NumPy."""
    u = np.asarray(u0, dtype=float)
    for layer in range(equation.control.num_intervals):
        operators = equation.control(float(layer))
        a, f = sorted(operators, key=lambda x: type(x).__name__)
        norms = equation.constraint(float(layer))
        if isinstance(norms, tuple):
            norms = [(np.asarray(n.gain), np.asarray(n.bias)) for n in norms]
        else:
            norms = [(1.0, 0.0)] * 2
        u = block(a, f, u, norms)
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


def damped_equation(rate=0.7):
    operators = (*make_block(jax.random.key(0)), ide.Damping(rate))
    return ide.Equation(ide.Tied(operators, 2), ide.Free(), ide.TokenDomain.uniform(TOKENS))


def test_splittings_use_the_flow_of_an_operator_that_knows_it():
    """Damping alone is solved exactly, whatever the step."""
    equation = ide.Equation(
        ide.Tied((ide.Damping(0.7),), 2), ide.Free(), ide.TokenDomain.uniform(TOKENS)
    )
    u0 = random_state()
    for solver in (ide.LieTrotter(), ide.Strang(diffrax.Euler()), ide.ParallelSplitting()):
        u1 = ide.solve(equation, u0, solver=solver).u1
        assert largest(u1, np.exp(-1.4) * u0) < 1e-14
    assert largest(ide.solve(equation, u0, solver=diffrax.Euler()).u1, u1) > 1e-2


def test_a_flow_of_one_part_splits_from_the_others():
    u0, equation = random_state(), damped_equation()
    u1 = ide.solve(equation, u0, solver=ide.LieTrotter()).u1
    u = u0
    for _ in range(2):
        first, second, _ = equation.control(0.0)
        u = u + first(u, equation.domain)
        u = u + second(u, equation.domain)
        u = np.exp(-0.7) * u
    assert largest(u1, u) < 1e-13


def test_parallel_splitting_with_euler_is_unsplit_euler():
    equation, u0 = make_equation(), random_state()
    parallel, euler = (
        ide.solve(equation, u0, solver=solver).u1
        for solver in (ide.ParallelSplitting(), diffrax.Euler())
    )
    assert largest(parallel, euler) < 1e-13


def test_neighbouring_sub_steps_of_a_composition_are_one():
    steps = ide.yoshida4().sub_steps(2)
    assert [index for index, *_ in steps] == [0, 1, 0, 1, 0, 1, 0]
    outer = 1 / (2 - 2 ** (1 / 3))
    assert steps[2][1:] == pytest.approx((outer / 2, outer + (1 - 2 * outer) / 2))
    assert steps[-1][2] == 1.0
    assert ide.Composition(coefficients=(0.5, 0.5)).order(make_equation().terms) == 2


def test_without_lookahead_nesterov_is_the_heavy_ball():
    equation, u0 = make_equation(), random_state()
    nesterov, heavy = (
        ide.solve(equation, u0, solver=solver, steps_per_interval=2).u1
        for solver in (ide.Nesterov(0.6, 0.0, 0.8), ide.HeavyBall(0.6, 0.8))
    )
    assert largest(nesterov, heavy) < 1e-13


def test_without_momentum_the_heavy_ball_is_lie_trotter():
    equation, u0 = make_equation(), random_state()
    heavy, plain = (
        ide.solve(equation, u0, solver=solver).u1
        for solver in (ide.HeavyBall(0.0, 1.0), ide.LieTrotter())
    )
    assert largest(heavy, plain) < 1e-13


def test_adams_bashforth_and_leapfrog_start_again_where_the_field_jumps():
    equation, u0 = make_equation(), random_state()
    heun = ide.solve(equation, u0, solver=diffrax.Heun()).u1
    adams = ide.solve(equation, u0, solver=ide.AdamsBashforth(3)).u1
    assert largest(adams, heun) < 1e-13
    euler = ide.solve(equation, u0, solver=diffrax.Euler()).u1
    assert largest(ide.solve(equation, u0, solver=ide.Leapfrog()).u1, euler) < 1e-13


def test_exponential_euler_does_not_mind_stiff_damping():
    equation, u0 = damped_equation(rate=200.0), random_state()
    exact = ide.solve(equation, u0, solver=diffrax.Kvaerno5(), steps_per_interval=50).u1
    stiff = ide.solve(equation, u0, solver=ide.ExponentialEuler()).u1
    assert largest(stiff, exact) < 1e-2
    explicit = ide.solve(equation, u0, solver=diffrax.Euler(), throw=False).u1
    assert not largest(explicit, exact) < 1e3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ide.Composition(coefficients=(0.3, 0.3)), "must sum to 1"),
        (lambda: ide.AdamsBashforth(4), "steps must be 2 or 3"),
        (lambda: ide.Nesterov(momentum=1.0), r"momentum=1.*must lie in \[0, 1\)"),
        (lambda: ide.HeavyBall(momentum=[0.5, -0.1]), r"momentum=\[ 0.5, -0.1\]"),
        (lambda: ide.Nesterov(gain=0.0), "gain=0.*must be positive"),
        (lambda: ide.Nesterov(momentum=[[[0.5]]]), "one for each operator"),
    ],
)
def test_schemes_that_cannot_be(make, message):
    with pytest.raises(ide.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("solver", "equation", "message"),
    [
        (ide.LieTrotter(ide.ExactFlow()), make_equation(), "Attention has no flow in closed"),
        (ide.yoshida4(), damped_equation(), "dissipative Damping grows without bound"),
        (ide.ExponentialEuler(), make_equation(), r"none in \(Attention, FeedForward\)"),
        (ide.ETDAB2(), make_equation(), "add a Damping or a Diffusion"),
        (ide.GatedRK2(5), make_equation(), r"GatedRK2\(features=5\): the state has 16"),
        (
            ide.PaperSplitting(),
            ide.Equation(
                ide.Tied((ide.Damping(1.0),), 1), ide.Free(), ide.TokenDomain.uniform(TOKENS)
            ),
            "PaperSplitting needs the terms of an equation whose block",
        ),
        (
            diffrax.Euler(),
            ide.Equation(
                ide.Tied((ide.Relaxation(1.0),), 1), ide.Free(), ide.TokenDomain.uniform(TOKENS)
            ),
            r"Relaxation has no source f; wrap the control",
        ),
    ],
    ids=lambda x: type(x).__name__,
)
def test_schemes_that_do_not_fit_the_equation(solver, equation, message):
    with pytest.raises(ide.InputError, match=message):
        ide.solve(equation, random_state(), solver=solver)


def test_the_paper_halves_the_rate_of_a_single_feature_integral():
    """As printed and with J = 1 it converges, but to an equation with half the integral."""
    first, second = jax.random.split(jax.random.key(0))
    attention_ = ide.Attention(WIDTH, 4, key=first, std=0.2)
    integral = ide.FeatureIntegral(WIDTH, key=second, std=0.2)
    halved = jax.tree.map(lambda x: 0.5 * x if isinstance(x, jax.Array) else x, integral)
    domain, u0 = ide.TokenDomain.uniform(TOKENS), ide.Sphere().project(random_state())

    def equation(block):
        return ide.Equation(ide.Tied(block, 2), ide.Sphere(), domain)

    def exact(block):
        solver = ide.Projected(diffrax.Dopri8())
        return ide.solve(equation(block), u0, solver=solver, steps_per_interval=24).u1

    printed = [
        ide.solve(
            equation((attention_, integral)),
            u0,
            solver=ide.PaperSplitting(),
            steps_per_interval=n,
        ).u1
        for n in (64, 128)
    ]
    errors = [largest(u1, exact((attention_, halved))) for u1 in printed]
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.15
    assert largest(printed[1], exact((attention_, integral))) > 10 * errors[1]
