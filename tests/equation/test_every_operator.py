"""Every operator does what `check_operator` asks; wrong ones do not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import classes_of, fast_first
from jaxtyping import Array
from misuse.recipes import OPERATORS

import ide_transformer as ide
from ide_transformer.testing import check_operator


WIDTH = 4
CLASSES = list(classes_of(ide.AbstractOperator))
CIRCLE = ide.TokenDomain.periodic(6)
OTHERS = ide.TokenDomain(jnp.arange(3.0)[:, None], jnp.array([1.0, 0.2, 0.5]))
# Arguments in the place of those of a recipe.
OTHER = {
    "ConvolutionalAttention": dict(width=3, stride=2, statistics=False),
    "Dropout": dict(key=None),
    "Injection": dict(source=None),
    "Relaxation": dict(source=None),
    "Attention": dict(window=None, query_normalization=ide.RMSNorm(eps=0.1), causal=True),
}
# Arguments of `check_operator`.
OPTIONS = {
    "Advection": dict(domain=CIRCLE, options={"velocity": [1.0]}),
    "ConvolutionalAttention": dict(options={"dimension": 1}),
    "DifferenceAdvection": dict(options={"velocity": [1.0]}),
    "DifferentialOperator": dict(options={"spacing": 0.2}),
    "Diffusion": dict(options={"rate": 0.5}),
    "FourierIntegral": dict(domain=CIRCLE),
    "LayerNormScaling": dict(options={"operator": "feed_forward"}),
    "Scaled": dict(options={"operator": "damping"}),
    "SourcedAttention": dict(options={"attention": "attention"}),
}


def of_class(name):
    recipe = OPERATORS[name]
    operator = recipe.call(**recipe.arguments | OTHER.get(name, {}))
    if name == "CrossAttention":
        source = np.random.default_rng(0).normal(size=(3, WIDTH))
        operator = operator.with_source(jnp.asarray(source), OTHERS)
    return operator


# With a form of their own of what others do, and a test against NumPy.
FORMS = ["SourcedAttention", "LayerNormScaling", "ConvolutionalFeedForward", "GatedFeedForward"]


@pytest.mark.parametrize(
    "name", fast_first(len(CLASSES) - len(FORMS), sorted(CLASSES, key=FORMS.__contains__))
)
def test_every_class(name):
    check_operator(of_class(name), WIDTH, **OPTIONS.get(name, {}))


class Mine(ide.AbstractOperator):
    """Right, or wrong in one way."""

    weight: Array
    way: str = eqx.field(static=True)
    pointwise = property(lambda self: self.way == "pointwise")
    causal = property(lambda self: self.way == "causal")

    def __init__(self, features: int, way: str = "right"):
        self.weight, self.way = jnp.linspace(0.5, 1, features), way

    def at_points(self, space):
        factor = 2 if self.way == "nodal" else 1
        return eqx.tree_at(lambda x: x.weight, self, factor * self.weight)

    def __call__(self, u, domain):
        shares = jnp.broadcast_to(domain.shares[..., None], u.shape).astype(u.dtype)
        way = WAYS.get(self.way, right) if isinstance(self.way, str) else self.way
        rate = way(u, shares, domain)
        return rate * jnp.broadcast_to(self.weight, u.shape).astype(u.dtype)


def total(v):
    """The sum over tokens, at each of them."""
    return jnp.broadcast_to(jnp.sum(v, axis=-2, keepdims=True), v.shape)


def right(u, shares, domain):
    return u + total(shares * u)


WAYS = {
    "dtype": lambda u, *_: u.astype(jnp.float64),
    "compiled": lambda u, _, domain: u * (1 + isinstance(domain.points, jax.core.Tracer)),
    "batches": lambda u, *_: u if u.ndim == 2 else 2 * u,
    "gradient": lambda u, *_: jnp.sin(jax.lax.stop_gradient(u)),
    "weights": lambda u, shares, _: total(jax.lax.stop_gradient(shares) * u),
    "padding": lambda u, *_: total(u),
    "permutation": lambda u, shares, _: jnp.cumsum(shares * u, axis=-2),
    "quadrature": lambda u, shares, _: total(shares**2 * u),
}


class MineInTokens(ide.AbstractTokenIntegral):
    """M of a token depends on others."""

    causal = False

    def over(self, u, domain, others):
        seen, whole = others(u + total(u), domain)
        return u + jnp.broadcast_to(whole.mean(seen)[..., None, :], u.shape)


class MineWithFlow(ide.AbstractExactOperator):
    dissipative = True

    def __call__(self, u, domain):
        return -u

    def flow(self, u, domain, h):
        return u * jnp.exp(h)


WRONG = {
    **{way: Mine(WIDTH, way) for way in ("nodal", "pointwise", "causal", *WAYS)},
    "march": MineInTokens(),
    "flow": MineWithFlow(),
}


@pytest.mark.parametrize("way", WRONG)
def test_a_wrong_one_is_noticed(way):
    others = {"copies", "yaml", *WRONG} - {way}
    with pytest.raises(AssertionError, match=f"Mine.*, {way}: "):
        check_operator(WRONG[way], WIDTH, without=tuple(others))


def test_one_of_your_own_is_right_and_what_cannot_be_copied_or_named_is_noticed():
    check_operator(Mine(WIDTH), WIDTH)
    with pytest.raises(AssertionError, match=r"Mine, copies: .*pickle"):
        check_operator(Mine(WIDTH, lambda u, *_: u), WIDTH)
    with pytest.raises(AssertionError, match=r"Diffusion, yaml: .*needs rate; give part"):
        check_operator(ide.Diffusion(1.0), WIDTH)
    with pytest.raises(ide.InputError, match=r"without=.'speed'.: no such property"):
        check_operator(Mine(WIDTH), WIDTH, without=("speed",))
