"""Errors where parts of an equation do not fit together; `tests/misuse` has those of single
arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import make_inputs

import ide_transformer as ide
from ide_transformer.equation import Domains, integrate
from ide_transformer.models.images import image_domain


KEY, WIDTH, TOKENS = jax.random.key(0), 16, 6
UNIFORM, PLANE = ide.TokenDomain.uniform(TOKENS), ide.TokenDomain.uniform((2, 3))
CIRCLE = ide.TokenDomain.periodic(TOKENS)
LINE = jnp.linspace(0, 1, TOKENS)
SIMPSON = ide.TokenDomain.simpson(LINE)
CLASS_TOKEN = image_domain((2, 2), 1, (2, 2), area_weights=False)
FEW, OTHER = (ide.TokenDomain(jnp.array(x)[:, None]) for x in ([0.0, 1.0], [7.0]))
SCATTERED = ide.TokenDomain(jnp.asarray(np.random.default_rng(0).uniform(size=(9, 2))))
DAMPED = ide.PiecewiseConstant((ide.Damping(np.ones(2)), ide.Damping(np.ones(2))))
SPACE = ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(WIDTH))


def rate(operator, domain=UNIFORM, width=WIDTH):
    return operator(jnp.ones((domain.num_tokens, width)), domain)


def attention(**options):
    return ide.Attention(WIDTH, 4, key=KEY, **options)


def crossed(*shape, width=WIDTH):
    operator = ide.CrossAttention(WIDTH, 4, key=KEY, source_features=5)
    domain = ide.TokenDomain.uniform(7)
    operator = operator.with_source(jnp.ones(shape), domain) if shape else operator
    return rate(operator, width=width)


def windows(size, **options):
    return rate(ide.ConvolutionalAttention(WIDTH, 4, key=KEY, **options), size)


REFUSED = {
    # Domains.
    "does not hold 3 points": lambda: ide.TokenDomain(jnp.zeros((3, 1)), grid=(2,)),
    "prefix=1": lambda: ide.TokenDomain(jnp.zeros((3, 2)), prefix=1),
    "give their spacing": lambda: ide.TokenDomain(LINE[:, None], grid=(TOKENS,)),
    "a length for each axis": lambda: ide.TokenDomain(LINE[:, None], spacing=(1.0, 2.0)),
    "weights are all zero": lambda: ide.TokenDomain(LINE[:, None], jnp.zeros(TOKENS)),
    "need both ends and weights": lambda: ide.TokenDomain(
        LINE[:, None], end_weights=jnp.ones((1, TOKENS))
    ),
    "one number, or one for each": lambda: ide.TokenDomain.periodic((3, 4), (1.0, 2.0, 3.0)),
    "give the lower end first": lambda: ide.TokenDomain.midpoint(3, (1.0, 0.0)),
    "mask is for 1 tokens": lambda: UNIFORM.padded(jnp.ones(1, bool)),
    "padded: mask=": lambda: UNIFORM.padded(jnp.ones(TOKENS)),
    "dimension 2, so that its tokens have no order": lambda: PLANE.positions,
    "periodic, so that its tokens have no order": lambda: CIRCLE.integral_up_to(LINE[:, None]),
    r"give TokenDomain\(points, weights\)": lambda: SIMPSON.with_queries(jnp.ones((1, 1))),
    "so that a weight is negative": lambda: ide.TokenDomain.simpson(LINE**2),
    "outside bounds": lambda: ide.TokenDomain.from_points(2 * LINE[:, None], ((0.0, 1.0),)),
    "for points of dimension 1": lambda: ide.TokenDomain.from_points(
        LINE[:, None], ((0.0, 1.0),) * 2
    ),
    "points are the same": lambda: ide.TokenDomain.from_points(jnp.ones((2, 1))),
    "it serves 1 and 2": lambda: ide.TokenDomain.from_points(jnp.ones((2, 3))),
    "give bounds": lambda: ide.TokenDomain.from_points(jnp.array([[0.0, 1], [2, 1]])),
    # Maps from one domain to another.
    "from a domain of dimension 1 to one of dimension 2": lambda: ide.interpolation(
        UNIFORM, PLANE
    ),
    "and domain.without_prefix": lambda: ide.interpolation(CLASS_TOKEN, PLANE),
    "degree=3 needs 4 or more": lambda: ide.interpolation(FEW, UNIFORM, degree=3),
    "a point at 7.0, but the source goes from 0.0": lambda: ide.interpolation(UNIFORM, OTHER),
    "degree=1 alone serves": lambda: ide.interpolation(SCATTERED, SCATTERED, degree=3),
    "two points at 1": lambda: ide.interpolation(
        ide.TokenDomain(jnp.array([[1.0], [0.0], [1.0]])), FEW
    ),
    "two points at 0, around a period of 2": lambda: ide.interpolation(
        ide.TokenDomain(jnp.array([[0.0], [1.0], [2.0]]), period=(2.0,)), FEW
    ),
    "no point of the source is near": lambda: ide.restriction(FEW, UNIFORM),
    r"weights of shape \(3, 6\), of its own": lambda: ide.restriction(
        ide.TokenDomain(UNIFORM.points, jnp.ones((3, TOKENS))), FEW
    ),
    # Functions of a feature.
    "at least as many points as modes": lambda: ide.FunctionSpace(
        ide.Cosine(), 6, ide.FeatureDomain(5)
    ),
    "7 features for 6 modes": lambda: ide.FunctionSpace(
        ide.Cosine(), 6, ide.FeatureDomain(7)
    ).inner(3),
    "give features=2": lambda: ide.FeatureDomain(1, "clenshaw_curtis"),
    "no rotary positions, which turn pairs": lambda: attention(
        positions=ide.Rotary()
    ).at_points(SPACE),
    "query_normalization or key_normalization; take": lambda: attention(
        query_normalization=ide.RMSNorm()
    ).at_points(SPACE),
    "Damping has no weights that are": lambda: ide.Damping(1.0).at_points(SPACE),
    # Controls and equations.
    "leading axis": lambda: ide.PiecewiseConstant((ide.LayerNorm(jnp.ones(3), jnp.ones(2)),)),
    "knots are too few": lambda: ide.PiecewiseLinear((ide.LayerNorm(jnp.ones((1, 3))),)),
    "resample: num_intervals=0": lambda: DAMPED.resample(0),
    "resample: num_intervals=2.5": lambda: DAMPED.resample(2.5),
    r"extend\(inf\): give a multiple": lambda: ide.Tied((), 2).extend(float("inf")),
    "gives weights at depths from 0 to 2 only": lambda: DAMPED.extend(3.0),
    "5 coefficients, .* waves, on num_intervals=4": lambda: ide.Fourier.build(
        lambda key: (ide.FeedForward(2, key=key),), 4, key=KEY, waves=2
    ),
    "2 coefficients, a constant": lambda: ide.Fourier((ide.LayerNorm(jnp.ones((2, 3))),), 4),
    "tuple of operators": lambda: ide.Equation(
        ide.Tied(ide.Damping(1.0), 2), ide.Free(), UNIFORM
    ),
    "3 constraints for 2 operators": lambda: ide.Equation(DAMPED, (ide.Free(),) * 3, UNIFORM),
    "on 3 intervals of length 1, the control on 2": lambda: ide.Equation(
        DAMPED, ide.Tied(ide.Free(), 3), UNIFORM
    ),
    r"2 intervals of length 0\.5, the control on 2": lambda: ide.Equation(
        DAMPED, ide.Tied(ide.Free(), 2, 0.5), UNIFORM
    ),
    "control yields Sphere; .* AbstractOperators": lambda: ide.Equation(
        ide.Tied((ide.Sphere(),), 2), ide.Free(), UNIFORM
    ),
    "constraint yields Damping, Damping": lambda: ide.Equation(DAMPED, DAMPED, UNIFORM),
    # Operators, their states and their domains.
    "heads=5 do not divide features=16": lambda: ide.Attention(WIDTH, 5, key=KEY),
    "key_value_heads=3 do not divide heads=4": lambda: attention(key_value_heads=3),
    r"LinearBias\(1\) .* heads=4": lambda: attention(positions=ide.LinearBias(1)),
    "table of 3 heads, .* heads=4": lambda: attention(
        positions=ide.RelativeBias(jnp.zeros((8, 3)))
    ),
    r"acts on 16 features.*\(6, 8\)": lambda: rate(ide.FeedForward(WIDTH, key=KEY), width=8),
    r"rate of shape \(3,\) meets 16 features": lambda: rate(ide.Damping(jnp.ones(3))),
    "acts on 6 features": lambda: rate(ide.DeltaRule(jnp.ones((2, 3)), jnp.ones(2))),
    "give an operator with LayerNorm or RMSNorm": lambda: ide.LayerNormScaling(
        ide.FeedForward(WIDTH, normalization=ide.Sphere(), key=KEY)
    ),
    "Damping has normalization=None": lambda: ide.LayerNormScaling(ide.Damping(1.0)),
    "no states of a second domain": lambda: crossed(),
    r"source has shape \(6, 5\).* need \(7, 5\)": lambda: crossed(6, 5),
    r"source has shape \(7, 4\).* need \(7, 5\)": lambda: crossed(7, 4),
    "CrossAttention acts on 16 features": lambda: crossed(7, 5, width=8),
    "window of 3 begins between the points": lambda: integrate(
        *make_inputs(TOKENS), Domains(SIMPSON, SIMPSON), ide.Volterra(3)
    ),
    "Advection expands in waves and needs a periodic": lambda: rate(ide.Advection(jnp.ones(1))),
    "Advection is for 2 dimensions": lambda: rate(ide.Advection(jnp.ones(2)), CIRCLE),
    "Diffusion needs tokens at equal distances": lambda: rate(ide.Diffusion(1.0), SIMPSON),
    "padding or a class token": lambda: rate(ide.DifferenceDiffusion(1.0), CLASS_TOKEN),
    "DifferenceAdvection is for 1 dimensions": lambda: rate(
        ide.DifferenceAdvection(LINE[:1]), PLANE
    ),
    "at least 7 points": lambda: rate(ide.FourierIntegral(WIDTH, key=KEY, modes=4), CIRCLE),
    "Convolution is for 1 dimensions": lambda: rate(ide.Convolution(WIDTH, key=KEY), PLANE),
    "width=4 has no middle": lambda: ide.Convolution(WIDTH, key=KEY, width=4),
    "dimension=2: planes have no order": lambda: ide.Convolution(
        WIDTH, key=KEY, causal=True, dimension=2
    ),
    "boundaries along all axes or along none": lambda: rate(
        ide.Diffusion(0.1), ide.TokenDomain.periodic(4).product(ide.TokenDomain.midpoint(4))
    ),
    "stride=2 does not divide a grid of 2 by 3": lambda: windows(PLANE),
    "is for 2 dimensions of tokens": lambda: windows(UNIFORM),
    "without weights, padding": lambda: windows(PLANE.padded(jnp.ones((1, TOKENS), bool))),
    "width=2; choose an odd one": lambda: windows(PLANE, width=2),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message, unchecked):
    with pytest.raises(ide.InputError, match=message):
        REFUSED[message]()


@pytest.mark.parametrize("rule, least", [("trapezoid", 2), ("simpson", 3)])
@pytest.mark.parametrize("points", [LINE[:1], LINE[::-1], jnp.zeros(3)])
def test_points_of_a_rule_are_in_order(rule, least, points):
    """Known while a program is traced, too."""
    make = getattr(ide.TokenDomain, rule)
    for call in (lambda: make(points), jax.jit(lambda: make(points).points)):
        with pytest.raises(ide.InputError, match=f"give {least} or more, each above the one"):
            call()
