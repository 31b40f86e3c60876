"""Every operator and every constraint do what their suites ask; wrong ones do not."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import ide_transformer as ide
from ide_transformer.testing import check_constraint, check_operator
from tests.conformance.constraints_and_controls import ConstraintConformance
from tests.conformance.operators import OperatorConformance
from tests.helpers import built, classes_of, fast_first


WIDTH = 4
KEY = jax.random.wrap_key_data(np.zeros(2, np.uint32))


# Values of arguments by their names, and of single classes.
VALUES = dict(features=WIDTH, heads=2, key_value_heads=1, head_features=2, hidden=8, modes=2)
VALUES |= dict(stride=1, dimension=1, outer_width=3, bias=True, output_bias=True)
VALUES |= dict.fromkeys(("normalization", "key_normalization"), ide.Free())
VALUES |= dict(std=0.1, output_std=0.1, causal=True, activation=ide.gelu, key=KEY)
VALUES |= dict(rate=0.5, operator=ide.Damping(1.0), velocity=jax.device_put(np.ones(1)))
VALUES |= dict(attention=built(lambda: ide.Attention(WIDTH, 2, key=KEY)))
OWN = {
    "Attention": dict(
        positions=ide.Rotary(), query_normalization=ide.RMSNorm(eps=0.1), window=None
    ),
    "ConvolutionalAttention": dict(width=3, stride=2, statistics=False),
    "Dropout": dict(key=None),
    "LayerNormScaling": dict(
        operator=built(lambda: ide.FeedForward(WIDTH, normalization=ide.LayerNorm(), key=KEY))
    ),
    "Relaxation": dict(rate=1.0),
}
CLASSES = classes_of(ide.AbstractOperator)
CIRCLE = ide.TokenDomain.periodic(6)
OTHERS = ide.TokenDomain(jnp.arange(3.0)[:, None], jnp.array([1.0, 0.2, 0.5]))
# Arguments of the suite.
OPTIONS = {
    "ConvolutionalAttention": dict(options={"dimension": 1}),
    "Diffusion": dict(options={"rate": 0.5}),
    "FourierIntegral": dict(domain=CIRCLE),
    "LayerNormScaling": dict(options={"operator": "feed_forward"}),
    "Scaled": dict(options={"operator": "damping"}),
    "SourcedAttention": dict(options={"attention": "attention"}),
}


def of_class(name):
    build = CLASSES[name]
    values = VALUES | OWN.get(name, {})
    parameters = inspect.signature(build).parameters
    operator = build(**{x: value for x, value in values.items() if x in parameters})
    if name == "CrossAttention":
        source = np.random.default_rng(0).normal(size=(3, WIDTH))
        operator = operator.with_source(jnp.asarray(source), OTHERS)
    return operator


# With a form of their own of what others do, and a test against NumPy.
FORMS = ["SourcedAttention", "LayerNormScaling", "ConvolutionalFeedForward", "GatedFeedForward"]
FORMS += ["ConvolutionalAttention", "StableDamping", "FourierIntegral", "Diffusion"]


@pytest.mark.parametrize(
    "name", fast_first(len(CLASSES) - len(FORMS), sorted(CLASSES, key=FORMS.__contains__))
)
def test_every_class_of_operators(name):
    OperatorConformance(of_class(name), WIDTH, **OPTIONS.get(name, {})).check()


class Mine(ide.AbstractOperator):
    """Right, or wrong in one way."""

    weight: Array
    fault: str = eqx.field(static=True)

    def __init__(self, features: int, fault: str = "right"):
        self.weight, self.fault = jnp.linspace(0.5, 1, features), fault

    def __call__(self, u, domain):
        shares = jnp.broadcast_to(domain.shares[..., None], u.shape).astype(u.dtype)
        rate_of = FAULTS.get(self.fault, right) if isinstance(self.fault, str) else self.fault
        rate = rate_of(u, shares, domain)
        return rate * jnp.broadcast_to(self.weight, u.shape).astype(u.dtype)


def total(v):
    """The sum over tokens, at each of them."""
    return jnp.broadcast_to(jnp.sum(v, axis=-2, keepdims=True), v.shape)


def right(u, shares, domain):
    return u + total(shares * u)


FAULTS = {
    "batches": lambda u, *_: u if u.ndim == 2 else 2 * u,
    "gradient": lambda u, *_: jnp.sin(jax.lax.stop_gradient(u)),
    "padding": lambda u, *_: total(u),
    "permutation": lambda u, shares, _: jnp.cumsum(shares * u, axis=-2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_one_is_noticed(fault):
    with pytest.raises(AssertionError, match=f"Mine, {fault}: "):
        check_operator(Mine(WIDTH, fault), WIDTH, without=("copies",))


def test_one_of_your_own_is_right_and_what_cannot_be_copied_or_named_is_noticed():
    check_operator(Mine(WIDTH), WIDTH)
    with pytest.raises(AssertionError, match=r"Mine, copies: .*pickle"):
        check_operator(Mine(WIDTH, lambda u, *_: u), WIDTH)


GAIN, BIAS = jnp.array([0.5, 1.0, 1.7, 2.0]), jnp.array([-1.0, 0.3, 0.6, 1.0])
# The maps of checkpoints move states that are on the set.
MAP = ("idempotent", "stays", "distance")
CONSTRAINTS = [
    (ide.Free(), ()),
    (ide.Nonnegative(), ()),
    (ide.Sphere(GAIN, BIAS), ()),
    (ide.RMSSphere(GAIN), ()),
    (ide.LayerNorm(GAIN, BIAS, eps=0.0), MAP),
    (ide.RMSNorm(GAIN, eps=0.0), MAP),
    (ide.Sphere(GAIN, domain=ide.FeatureDomain(4, "gauss_legendre")), ("nodal",)),
]


def test_all_constraints_are_here():
    classes = {*classes_of(ide.AbstractConstraint).values()}
    assert classes == {type(constraint) for constraint, _ in CONSTRAINTS}


@pytest.mark.parametrize(("constraint", "without"), CONSTRAINTS, ids=repr)
def test_every_class_of_constraints(constraint, without):
    ConstraintConformance(constraint, 4).check(without)


class Cube(ide.AbstractConstraint):
    """`|u| <= r`, right or wrong in one way."""

    radius: jax.Array = eqx.field(converter=jnp.asarray, default=1.5)
    fault: str = eqx.field(static=True, default="right")

    def project(self, u):
        r = self.radius.astype(u.dtype)
        if self.fault == "gradient":
            r = jax.lax.stop_gradient(r)
        return jnp.clip(u, -r, r)

    def tangent(self, u, du):
        inwards = jnp.where(u > 0, jnp.minimum(du, 0), jnp.maximum(du, 0))
        far = jnp.where(abs(u) > self.radius, 0, du if self.fault == "tangents" else inwards)
        return jnp.where(abs(u) < self.radius, du, far)

    def residual(self, u):
        right = super().residual(u)
        return 1e-3 + right if self.fault == "on_set" else right


def test_the_residual_has_a_gradient_also_on_the_set():
    token, step = np.array([3.0, 1.0, -1.0, 2.0]), 1e-6 * np.eye(4)
    for constraint in (ide.Sphere(2.0, 1.0), ide.RMSNorm(3.0, eps=0.0)):
        residual, slope = eqx.filter_jit(constraint.residual), jax.grad(constraint.residual)
        quotients = (residual(token + step) - residual(token - step)) / 2e-6
        np.testing.assert_allclose(slope(token), quotients, atol=1e-8)
        assert np.isfinite(slope(constraint.project(token))).all()
    distance, slope = jax.value_and_grad(ide.Sphere().residual)(np.full(4, 0.75))
    assert float(distance) == pytest.approx(1.25) and np.isfinite(slope).all()


def test_a_constraint_of_your_own_is_right_and_wrong_ones_are_noticed():
    check_constraint(Cube(), 4)
    wrong = {fault: Cube(fault=fault) for fault in ("gradient", "tangents", "on_set")}
    for fault, constraint in {**wrong, "idempotent": ide.LayerNorm(GAIN, BIAS)}.items():
        with pytest.raises(AssertionError, match=f", {fault}: "):
            check_constraint(constraint, 4)
