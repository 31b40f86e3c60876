"""Every constraint does what `check_constraint` asks; wrong ones do not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import classes_of

import ide_transformer as ide
from ide_transformer.testing import check_constraint


GAIN, BIAS = jnp.array([0.5, 1.0, 1.7, 2.0]), jnp.array([-1.0, 0.3, 0.6, 1.0])
# The maps of checkpoints move states that are on the set.
MAP = ("idempotent", "stays")
CASES = [
    (ide.Free(), ()),
    (ide.Nonnegative(), ()),
    (ide.Sphere(GAIN, BIAS), ()),
    (ide.RMSSphere(GAIN), ()),
    (ide.LayerNorm(GAIN, BIAS, eps=0.0), MAP),
    (ide.RMSNorm(GAIN, eps=0.0), MAP),
    (ide.Sphere(GAIN, domain=ide.FeatureDomain(4, "gauss_legendre")), ("nodal",)),
]


def test_all_classes_are_here():
    found = {*classes_of(ide.AbstractConstraint).values()}
    assert found == {type(constraint) for constraint, _ in CASES}


@pytest.mark.parametrize(("constraint", "without"), CASES, ids=repr)
def test_every_class(constraint, without):
    check_constraint(constraint, 4, without=without)


class Cube(ide.AbstractConstraint):
    """`|u| <= r`, right or wrong in one way."""

    radius: jax.Array = eqx.field(converter=jnp.asarray, default=1.5)
    way: str = eqx.field(static=True, default="right")

    def project(self, u):
        r = self.radius.astype(jnp.float64 if self.way == "dtype" else u.dtype)
        if self.way == "gradient":
            r = jax.lax.stop_gradient(r)
        if self.way == "tokens":
            r = r + u.max() / 1000
        return jnp.clip(u, -r, r)

    def at_points(self, space):
        return Cube(2 * self.radius) if self.way == "nodal" else self

    def tangent(self, u, du):
        inwards = jnp.where(u > 0, jnp.minimum(du, 0), jnp.maximum(du, 0))
        far = jnp.where(abs(u) > self.radius, 0, du if self.way == "tangents" else inwards)
        return jnp.where(abs(u) < self.radius, du, far)

    def residual(self, u):
        beyond = jnp.max(abs(u), axis=-1) - self.radius
        beyond = 0 * beyond if self.way == "off_set" else beyond
        return beyond if self.way == "on_set" else jax.nn.relu(beyond)


class Unscaled(ide.Sphere):
    def unproject(self, projected, scales):
        return projected


WAYS = "dtype", "gradient", "tokens", "tangents", "off_set", "on_set", "nodal"
WRONG = {
    **{way: Cube(way=way) for way in WAYS},
    "idempotent": ide.LayerNorm(GAIN, BIAS, eps=0.0),
    "stays": ide.RMSNorm(GAIN, eps=0.0),
    "unproject": Unscaled(),
}


def test_one_of_your_own_is_right_and_wrong_ones_are_noticed():
    check_constraint(Cube(), 4)
    for way, constraint in WRONG.items():
        others = {"copies", "yaml", *WRONG} - {way}
        with pytest.raises(AssertionError, match=f", {way}: "):
            check_constraint(constraint, 4, without=tuple(others))
