"""Errors where parts of an equation do not fit together; `tests/misuse` has those of single
arguments."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from equation.integrals import make_inputs
from helpers import built, drawn

import ide_transformer as ide
from ide_transformer.equation import integrate
from ide_transformer.integration import TokenMarch
from ide_transformer.models.images import image_domain


KEY, WIDTH, TOKENS = jax.random.key(0), 16, 6
Domain, LINE = ide.TokenDomain, jnp.linspace(0, 1, TOKENS)
UNIFORM, PLANE, CIRCLE = Domain.uniform(TOKENS), Domain.uniform((2, 3)), Domain.periodic(TOKENS)
SIMPSON, FEW = Domain.simpson(LINE), Domain(jnp.array([[0.0], [1.0]]))
CLASS_TOKEN = image_domain((2, 2), 1, (2, 2), area_weights=False)
SCATTERED = Domain(abs(drawn((9, 2), seed=0)))
BACKWARDS, TWICE = LINE[::-1], jnp.array([[1.0], [0.0], [1.0]])
DAMPED = ide.PiecewiseConstant((ide.Damping(np.ones(2)), ide.Damping(np.ones(2))))
SPACE = ide.FunctionSpace(ide.Cosine(), WIDTH, ide.FeatureDomain(WIDTH))


def rate(operator, domain=UNIFORM, width=WIDTH):
    return jax.eval_shape(lambda: operator(jnp.ones((domain.num_tokens, width)), domain))


def at_points(**options):
    attention = built(lambda: ide.Attention(WIDTH, 4, key=KEY, **options))
    return eqx.filter_eval_shape(lambda: attention.at_points(SPACE))


def crossed(*shape):
    operator = built(lambda: ide.CrossAttention(WIDTH, 4, key=KEY, source_features=5))
    source = [jnp.ones(shape), Domain.uniform(7)]
    return rate(operator.with_source(*source) if shape else operator)


def windows(domain, **options):
    make = ft.partial(ide.ConvolutionalAttention, WIDTH, 4, key=KEY, **options)
    return rate(built(make), domain)


def equation(theta, constraint=ide.Free()):
    return ide.Equation(theta, constraint, UNIFORM)


REFUSED = {
    # Domains.
    "need both ends and weights": lambda: Domain(LINE[:, None], end_weights=jnp.ones((1, 6))),
    "dimension 2, so that its tokens have no order": lambda: PLANE.positions,
    "periodic, so that its tokens have no order": lambda: CIRCLE.integral_up_to(LINE[:, None]),
    r"give TokenDomain\(points, weights\)": lambda: SIMPSON.with_queries(jnp.ones((1, 1))),
    "so that a weight is negative": lambda: Domain.simpson(LINE**2),
    "give bounds": lambda: Domain.from_points(jnp.array([[0.0, 1], [2, 1]])),
    "one number, or one for each": lambda: Domain.periodic((3, 4), (1.0, 2.0, 3.0)),
    # Maps from one domain to another.
    "dimension 1 to one of dimension 2": lambda: ide.interpolation(UNIFORM, PLANE),
    "and domain.without_prefix": lambda: ide.interpolation(CLASS_TOKEN, PLANE),
    "a point at 3.0, but the source goes from 0.0": lambda: ide.interpolation(FEW, UNIFORM),
    "points allow degree=1 only": lambda: ide.interpolation(SCATTERED, SCATTERED, degree=3),
    "two points at 0, around a period of 1": lambda: ide.interpolation(
        Domain(TWICE[:2], period=(1.0,)), FEW
    ),
    "no point of the source is near": lambda: ide.restriction(FEW, UNIFORM),
    r"weights of shape \(3, 6\), of its own": lambda: ide.restriction(
        Domain(UNIFORM.points, jnp.ones((3, TOKENS))), FEW
    ),
    # Functions of a feature.
    "at least as many points as modes": lambda: ide.FunctionSpace(
        ide.Cosine(), 6, ide.FeatureDomain(5)
    ),
    "give features=2": lambda: ide.FeatureDomain(1, "clenshaw_curtis"),
    "7 features for 6 modes": lambda: ide.FunctionSpace(
        ide.Cosine(), 6, ide.FeatureDomain(7)
    ).inner(3),
    "no rotary positions": lambda: at_points(positions=ide.Rotary()),
    "Damping has no weights that are": lambda: ide.Damping(1.0).at_points(SPACE),
    # Controls and equations.
    "tuple of operators": lambda: equation(ide.Tied(ide.Damping(1.0), 2)),
    "3 constraints for 2 operators": lambda: equation(DAMPED, (ide.Free(),) * 3),
    "on 3 intervals of length 1": lambda: equation(DAMPED, ide.Tied(ide.Free(), 3)),
    r"2 intervals of length 0\.5": lambda: equation(DAMPED, ide.Tied(ide.Free(), 2, 0.5)),
    "constraint yields Damping, Damping": lambda: equation(DAMPED, DAMPED),
    # Operators, their states and their domains.
    r"LinearBias\(1\) .* heads=4": lambda: at_points(positions=ide.LinearBias(1)),
    r"acts on 16 features.*\(6, 8\)": lambda: rate(ide.FeedForward(WIDTH, key=KEY), width=8),
    "give an operator with LayerNorm or RMSNorm": lambda: ide.LayerNormScaling(
        ide.FeedForward(WIDTH, normalization=ide.Sphere(), key=KEY)
    ),
    "no states of a second domain": lambda: crossed(),
    r"source has shape \(6, 5\).* need \(7, 5\)": lambda: crossed(6, 5),
    "window of 3 begins between the points": lambda: integrate(
        *make_inputs(TOKENS), SIMPSON, SIMPSON, ide.Volterra(3)
    ),
    "Advection expands in waves and needs a periodic": lambda: rate(ide.Advection(jnp.ones(1))),
    "Diffusion needs tokens at equal distances": lambda: rate(ide.Diffusion(1.0), SIMPSON),
    "padding or a class token": lambda: rate(ide.DifferenceDiffusion(1.0), CLASS_TOKEN),
    "at least 7 points": lambda: rate(ide.FourierIntegral(WIDTH, key=KEY, modes=4), CIRCLE),
    "boundaries along all axes or along none": lambda: rate(
        ide.Diffusion(0.1), Domain.periodic(4).product(Domain.midpoint(4))
    ),
    "stride=2 does not divide a grid of 2 by 3": lambda: windows(PLANE),
    "without weights, padding": lambda: windows(PLANE.padded(jnp.ones((1, TOKENS), bool))),
    "not known to be in increasing order": lambda: TokenMarch(
        ide.Equation(
            ide.Tied((ide.LinearAttention(8, 2, key=KEY),), 1), ide.Free(), Domain(TWICE)
        ),
        ide.Discretization(ide.RK4()),
        jax.ShapeDtypeStruct((1, 8), float),
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message, unchecked):
    with pytest.raises(ide.InputError, match=message):
        REFUSED[message]()


@pytest.mark.parametrize("rule, least", [("trapezoid", 2), ("simpson", 3)])
def test_points_of_a_rule_are_in_order(rule, least):
    """Known while a program is traced, too."""
    with pytest.raises(ide.InputError, match=f"give {least} or more, each above the one"):
        jax.jit(lambda: getattr(Domain, rule)(BACKWARDS).points)()
