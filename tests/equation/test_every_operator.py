"""What every operator does, of each class and of one's own, and that it would be noticed."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
<<<<<<< HEAD
from misuse.recipes import OPERATORS
from misuse.values import DOMAIN, TOKENS, U0
=======
from jaxtyping import Array
from misuse.recipes.parts import OPERATORS
>>>>>>> 7146054 (What every operator, control and constraint does is checked by one function for each)

import ide_transformer as ide
from ide_transformer.testing import check_operator


WIDTH, KEY = 4, jax.random.key(0)
CLASSES = sorted(
    name
    for name, public in vars(ide).items()
    if inspect.isclass(public)
    and issubclass(public, ide.AbstractOperator)
    and not inspect.isabstract(public)
)
CIRCLE = ide.TokenDomain.periodic(6)
OTHERS = ide.TokenDomain(jnp.arange(3.0)[:, None], jnp.array([1.0, 0.0, 0.5]))
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


@pytest.mark.parametrize("name", CLASSES)
def test_every_class(name):
    check_operator(of_class(name), WIDTH, **OPTIONS.get(name, {}))


class Mine(ide.AbstractOperator):
    """`du/dt = w ⊙ F(u)`, F right or wrong in one way."""

    weight: Array
    way: str = eqx.field(static=True, default="right")

    def __init__(self, features: int, way: str = "right"):
        self.weight, self.way = jnp.linspace(0.5, 1, features), way

    @property
    def pointwise(self):
        return self.way == "pointwise"

    @property
    def causal(self):
        return self.way == "causal"

    def at_points(self, space):
        if self.way != "nodal":
            return super().at_points(space)
        return eqx.tree_at(lambda x: x.weight, self, 2 * self.weight)

    def __call__(self, u, domain):
        weight, mean = jnp.broadcast_to(self.weight, u.shape), domain.mean(u)[..., None, :]
        return WAYS.get(self.way, self.way)(
            weight.astype(u.dtype), u, domain, jnp.broadcast_to(mean, u.shape)
        )


def shares(u, domain):
    return jnp.broadcast_to(domain.shares[..., None], u.shape)


def right(w, u, domain, mean):
    return w * (u + mean)


WAYS = {
    "right": right,
    "nodal": right,
    "pointwise": right,
    "causal": right,
    "dtype": lambda w, u, *_: w * u.astype(jnp.float64),
    "compiled": lambda w, u, domain, _: (
        w * u * (1 + isinstance(domain.points, jax.core.Tracer))
    ),
    "batches": lambda w, u, *_: (
        w * jnp.mean(u.reshape(-1, *u.shape[-2:]), axis=0) if u.ndim > 2 else w * u
    ),
    "gradient": lambda w, u, domain, mean: w * u + jax.lax.stop_gradient(mean),
    "padding": lambda w, u, *_: (
        w * (u - jnp.mean(u, axis=-2, keepdims=True) * jnp.ones_like(u))
    ),
    "permutation": lambda w, u, domain, _: w * jnp.cumsum(shares(u, domain) * u, axis=-2),
    "quadrature": lambda w, u, domain, _: (
        w * jnp.sum(shares(u, domain) ** 2 * u, axis=-2, keepdims=True) * jnp.ones_like(u)
    ),
}


class MineInTokens(ide.AbstractTokenIntegral):
    """Whose M of a token depends on others."""

    causal = False

    def over(self, u, domain, others):
        seen, whole = others(u + domain.mean(u)[..., None, :] * jnp.ones_like(u), domain)
        return u + whole.mean(seen)[..., None, :] * jnp.ones_like(u)


class MineWithFlow(ide.AbstractExactOperator):
    dissipative = True

    def __call__(self, u, domain):
        return -u

    def flow(self, u, domain, h):
        return u * jnp.exp(h)


def test_one_of_your_own():
    check_operator(Mine(WIDTH), WIDTH)


WRONG = {
    **{way: Mine(WIDTH, way) for way in WAYS if way != "right"},
    "march": MineInTokens(),
    "flow": MineWithFlow(),
}


@pytest.mark.parametrize("way", WRONG)
def test_a_wrong_one_is_noticed(way):
    with pytest.raises(AssertionError, match=f"Mine.*, {way}: "):
        check_operator(WRONG[way], WIDTH)


class Unnamed(Mine):
    def __init__(self, way):
        super().__init__(WIDTH, way)


def test_one_that_cannot_be_copied_or_named_is_noticed():
    def local(w, u, *_):
        return w * u

    with pytest.raises(AssertionError, match=r"Unnamed, copies: .*pickle"):
        check_operator(Unnamed(local), WIDTH)
    with pytest.raises(AssertionError, match=r"Unnamed, yaml: .*part: .* needs way"):
        check_operator(Unnamed("right"), WIDTH)
    with pytest.raises(ide.InputError, match=r"without=.'speed'.: no such property"):
        check_operator(Mine(WIDTH), WIDTH, without=("speed",))
