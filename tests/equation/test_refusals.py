"""Errors where parts of an equation do not fit together; `tests/misuse` has those of single
arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import built, drawn

import ide_transformer as ide


KEY, WIDTH, TOKENS = jax.random.key(0), 16, 6
Domain, LINE = ide.TokenDomain, jnp.linspace(0, 1, TOKENS)
UNIFORM, PLANE, CIRCLE = Domain.uniform(TOKENS), Domain.uniform((2, 3)), Domain.periodic(TOKENS)
SIMPSON, FEW = Domain.simpson(LINE), Domain(jnp.array([[0.0], [1.0]]))
BACK, SCATTERED = LINE[::-1], Domain(abs(drawn((9, 2), seed=0)))
DAMPED = ide.PiecewiseConstant((ide.Damping(np.ones(2)), ide.Damping(np.ones(2))))


def rate(operator, domain=UNIFORM):
    return jax.eval_shape(lambda: operator(jnp.ones((domain.num_tokens, WIDTH)), domain))


def made(kind, *heads, **options):
    return built(lambda: kind(WIDTH, *heads, key=KEY, **options))


def equation(theta, constraint=ide.Free()):
    return ide.Equation(theta, constraint, UNIFORM)


WINDOWS = made(ide.ConvolutionalAttention, 4)
REFUSED = {
    # Domains.
    r"give TokenDomain\(points, weights\)": lambda: SIMPSON.with_queries(jnp.ones((1, 1))),
    "give 2 or more, each above the one": lambda: jax.jit(
        lambda: Domain.trapezoid(BACK).points
    )(),
    # Maps from one domain to another.
    "a point at 3.0, but the source goes from 0.0": lambda: ide.interpolation(FEW, UNIFORM),
    "points allow degree=1 only": lambda: ide.interpolation(SCATTERED, SCATTERED, degree=3),
    "no point of the source is near": lambda: ide.restriction(FEW, UNIFORM),
    # Controls and equations.
    "on 3 intervals of length 1": lambda: equation(DAMPED, ide.Tied(ide.Free(), 3)),
    "constraint yields Damping, Damping": lambda: equation(DAMPED, DAMPED),
    # Operators, their states and their domains.
    "no states of a second domain": lambda: rate(made(ide.CrossAttention, 4)),
    "window of 3 begins between the points": lambda: rate(
        made(ide.Attention, 4, causal=True, window=3), SIMPSON
    ),
    "Advection expands in waves and needs a periodic": lambda: rate(ide.Advection(jnp.ones(1))),
    "Diffusion needs tokens at equal distances": lambda: rate(ide.Diffusion(1.0), SIMPSON),
    "at least 7 points": lambda: rate(made(ide.FourierIntegral, modes=4), CIRCLE),
    "stride=2 does not divide a grid of 2 by 3": lambda: rate(WINDOWS, PLANE),
    "without weights, padding": lambda: rate(WINDOWS, PLANE.padded(jnp.ones((1, 6), bool))),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message, unchecked):
    with pytest.raises(ide.InputError, match=message):
        REFUSED[message]()
