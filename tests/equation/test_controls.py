import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import WIDTH, largest, make_block, make_equation, random_state

import ide_transformer as ide


def linear_block(key):
    return (ide.FeedForward(WIDTH, key=key),)


def weight_at(control, t):
    return control(t)[0].inner.weight


def test_piecewise_constant_layers(key):
    keys = jax.random.split(key, 3)
    control = ide.PiecewiseConstant(eqx.filter_vmap(linear_block)(keys))
    for depth, layer in ((0.0, 0), (0.99, 0), (1.0, 1), (2.5, 2), (3.0, 2)):
        expected = linear_block(keys[layer])[0].inner.weight
        assert (weight_at(control, depth) == expected).all()


@pytest.mark.parametrize("intervals", [25, 49, 50, 100])
def test_every_layer_is_read_in_float32(intervals):
    """`floor(t L)` on [0, 1] picks wrong layers for these numbers; depth in layers does not."""
    blocks = eqx.filter_vmap(lambda i: (ide.LayerNorm(gain=i[None]),))(
        jnp.arange(intervals, dtype=jnp.float32)
    )
    control = ide.PiecewiseConstant(blocks)
    ts = jnp.arange(intervals, dtype=jnp.float32)
    gains = jax.vmap(lambda t: control(t)[0].gain[0])(ts)
    assert (gains == ts).all()


def test_piecewise_linear(key):
    control = ide.PiecewiseLinear.build(linear_block, 2, key=key)
    knots = control.knots[0].inner.weight
    assert control.num_intervals == 2
    for depth in (0.0, 1.0, 2.0):
        assert (weight_at(control, depth) == knots[int(depth)]).all()
    assert largest(weight_at(control, 1.25), 0.75 * knots[1] + 0.25 * knots[2]) < 1e-15


def test_tied(key):
    control = ide.Tied(linear_block(key), 5)
    assert control.num_intervals == 5
    assert (weight_at(control, 0.3) == weight_at(control, 4.9)).all()


@pytest.mark.parametrize("control", [ide.PiecewiseConstant, ide.PiecewiseLinear, ide.Tied])
def test_refining_a_control_keeps_the_solution(control):
    equation = make_equation(control, intervals=2)
    fine = ide.Equation(equation.control.resample(6), ide.Free(), equation.domain)
    assert fine.horizon == equation.horizon
    u0 = random_state()
    one = ide.solve(equation, u0, solver=ide.RK4(), steps_per_interval=3).u1
    other = ide.solve(fine, u0, solver=ide.RK4(), steps_per_interval=1).u1
    assert largest(one, other) < 1e-12


def test_coarsening_averages(key):
    control = ide.PiecewiseConstant.build(linear_block, 4, key=key)
    weights = control.blocks[0].inner.weight
    coarse = control.resample(2)
    assert coarse.interval_length == 2.0
    assert largest(weight_at(coarse, 3.0), (weights[2] + weights[3]) / 2) < 1e-15
    thirds = control.resample(3)
    assert largest(weight_at(thirds, 0.0), 0.75 * weights[0] + 0.25 * weights[1]) < 1e-15


def test_sampled_draws_once_per_interval(key):
    def block(key):
        return (ide.Dropout(ide.FeedForward(WIDTH, key=key), 0.5),)

    control = ide.Sampled(ide.Tied(block(key), 3), key)
    u, domain = random_state(), ide.TokenDomain.uniform(6)
    zero = [control(t)[0](u, domain) == 0 for t in (0.0, 0.7, 1.0)]
    assert (zero[0] == zero[1]).all()
    assert not (zero[0] == zero[2]).all()
    equation = ide.Equation(control, ide.Free(), domain)
    by_hand = u
    for t in range(3):
        by_hand = by_hand + control(float(t))[0](by_hand, domain)
    assert largest(ide.solve(equation, u, solver=ide.LieTrotter()).u1, by_hand) < 1e-13


def test_bad_controls(key):
    with pytest.raises(ide.InputError, match="leading axis"):
        ide.PiecewiseConstant((ide.FeedForward(WIDTH, key=key),))
    with pytest.raises(ide.InputError, match="at least two knots"):
        ide.PiecewiseLinear(eqx.filter_vmap(linear_block)(key[None]))
    with pytest.raises(ide.InputError, match="at least one interval"):
        ide.Tied(linear_block(key), 0)
    with pytest.raises(ide.InputError, match=r"resample\(0\)"):
        ide.Tied(linear_block(key), 2).resample(0)


def test_equations_that_do_not_fit(key):
    domain = ide.TokenDomain.uniform(6)
    control = ide.PiecewiseConstant.build(make_block, 2, key=key)
    with pytest.raises(ide.InputError, match="tuple of operators"):
        ide.Equation(ide.Tied(ide.FeedForward(WIDTH, key=key), 2), ide.Free(), domain)
    with pytest.raises(ide.InputError, match="3 constraints for 2 operators"):
        ide.Equation(control, (ide.Free(),) * 3, domain)
    with pytest.raises(ide.InputError, match="on 3 intervals, the control on 2"):
        ide.Equation(control, ide.Tied(ide.Free(), 3), domain)


SMOOTH = [ide.Chebyshev, ide.Fourier, ide.Hypernetwork]


@pytest.mark.parametrize("control", SMOOTH)
def test_what_is_the_same_in_every_draw_does_not_vary_with_depth(control):
    theta = control.build(
        lambda key: (ide.LayerNorm(jnp.full(3, 2.0)),), 5, key=jax.random.key(0)
    )
    for t in (0.0, 1.7, 5.0):
        assert largest(theta(t)[0].gain, 2.0) < 1e-12


def test_expansions_take_the_drawn_values_at_their_nodes(key):
    keys = jax.random.split(key, 5)
    drawn = [linear_block(k)[0].inner.weight for k in keys]
    fourier = ide.Fourier.build(linear_block, 5, key=key)
    chebyshev = ide.Chebyshev.build(linear_block, 5, key=key)
    for j in range(5):
        assert largest(weight_at(fourier, float(j)), drawn[j]) < 1e-13
        node = 2.5 * (1 + jnp.cos(jnp.pi * (j + 0.5) / 5))
        assert largest(weight_at(chebyshev, node), drawn[j]) < 1e-13


@pytest.mark.parametrize("control", SMOOTH)
@pytest.mark.parametrize(
    "solver",
    [ide.LieTrotter(), ide.RK4(), ide.Projected(diffrax.Midpoint()), diffrax.Tsit5()],
    ids=repr,
)
def test_weights_evaluated_ahead_of_the_march_are_those_of_the_control(control, solver):
    equation = make_equation(control, intervals=3)
    u0 = random_state()
    ahead = ide.solve(equation, u0, solver=solver).u1
    by_hand = diffrax.diffeqsolve(equation.terms, solver, 0.0, 3.0, 1.0, u0).ys[0]
    assert largest(ahead, by_hand) < 1e-12


@pytest.mark.parametrize("control", SMOOTH)
def test_a_march_looks_smooth_weights_up(control):
    """The loop over layers holds no product with the basis: it was made before."""
    equation = make_equation(control, intervals=4)

    def solve(u0):
        return ide.solve(equation, u0, solver=ide.LieTrotter(), throw=False).u1

    loops = [
        e
        for e in _equations(jax.make_jaxpr(solve)(random_state()).jaxpr)
        if e.primitive.name == "scan"
    ]
    assert loops
    terms = jax.tree.leaves(eqx.filter(equation.control.coefficients, eqx.is_array))
    for loop in loops:
        inside = [
            v.aval.shape for e in _equations(loop.params["jaxpr"].jaxpr) for v in e.invars
        ]
        assert not any(x.shape in inside for x in terms)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)


@pytest.mark.parametrize("control", SMOOTH)
def test_resampling_a_smooth_control_keeps_it(control):
    theta = control.build(linear_block, 5, key=jax.random.key(0))
    fine = theta.resample(10)
    assert fine.num_intervals * fine.interval_length == 5
    assert largest(weight_at(fine, 3.3), weight_at(theta, 3.3)) < 1e-14


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ide.Fourier.build(linear_block, 4, key=jax.random.key(0), waves=2),
            "2 waves need at least 5 intervals.*but there are 4; take from 0 to 1 waves",
        ),
        (
            lambda: ide.Fourier((ide.LayerNorm(jnp.ones((2, 3))),), 4),
            "2 coefficients; it needs an odd number",
        ),
        (
            lambda: ide.Chebyshev.build(linear_block, 4, key=jax.random.key(0), terms=0),
            "at least one term",
        ),
        (
            lambda: ide.Hypernetwork.build(linear_block, 4, key=jax.random.key(0), hidden=0),
            "each must be at least 1",
        ),
    ],
)
def test_expansions_that_cannot_be(make, message):
    with pytest.raises(ide.InputError, match=message):
        make()
