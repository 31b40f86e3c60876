"""Every control does what `check_control` asks; wrong ones do not."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from helpers import built, classes_of, drawn

import ide_transformer as ide
from ide_transformer.testing import check_control


KEY = jax.random.key(0)


def block(key):
    return (ide.FeatureIntegral(3, key=key, normalization=ide.RMSNorm(jnp.ones(3))),)


BUILT = {
    ide.PiecewiseConstant: {},
    ide.PiecewiseLinear: {},
    ide.Tied: {},
    ide.Chebyshev: dict(terms=2),
    ide.Fourier: dict(waves=1),
    ide.Hypernetwork: dict(terms=2, hidden=2, frequencies=1),
}


@pytest.mark.parametrize("kind", BUILT)
def test_every_class(kind):
    control = built(lambda: kind.build(block, 3, key=KEY, **BUILT[kind]))
    check_control(control, options=BUILT[kind])


def test_all_classes_are_here():
    found = {*classes_of(ide.AbstractControl).values()}
    assert found == {*BUILT, ide.Functional, ide.Sampled, ide.Sourced}


def test_controls_that_change_another_one():
    inner = built(lambda: ide.PiecewiseConstant.build(block, 3, key=KEY))
    space = ide.FunctionSpace(ide.Warped(2), 3, ide.FeatureDomain(5, "gauss_legendre"))
    check_control(ide.Functional(inner, space), without=("precision",))
    dropped = ide.Tied((ide.Dropout(*block(KEY), 0.5),), 3)
    # Other intervals have other draws.
    check_control(ide.Sampled(dropped, KEY), without=("resample", "extend"))
    injected = ide.PiecewiseLinear((ide.Injection(drawn((4,), 1)),))
    check_control(ide.Sourced(injected, jnp.ones((2, 3))), without=("precision",))


class Mine(ide.PiecewiseLinear):
    """Right or wrong in one way."""

    way: str = eqx.field(static=True, default="right")

    @property
    def depth_axes(self):
        return 0 if self.way == "precision" else 1

    def local(self, interval, s):
        found = super().local(interval, s / 2 if self.way == "continuous" else s)
        return jax.lax.stop_gradient(found) if self.way == "gradient" else found

    def __call__(self, t):
        return super().__call__(t + 0.1 if self.way == "march" else t)

    def resample(self, num_intervals):
        fine = super().resample(num_intervals)
        factor = 2 if self.way == "coarse" and num_intervals == 1 else 1
        knots = self.knots if self.way == "resample" else fine.knots
        return type(self)(knots, factor * fine.interval_length, self.way)

    def extend(self, horizon):
        return self if self.way == "extend" else super().extend(horizon)

    def tabulate(self, fractions):
        factor = 2 if self.way == "tabulate" else 1
        return replace(self, knots=jax.tree.map(lambda x: factor * x, self.knots))

    @classmethod
    def build(cls, make_block, num_intervals, *, wrong=0, key):
        return cls(super().build(make_block, num_intervals + wrong, key=key).knots)


WAYS = (
    *("precision", "continuous", "gradient", "march"),
    *("coarse", "resample", "extend", "tabulate"),
)


def test_one_of_your_own_is_right_and_wrong_ones_are_noticed():
    mine = built(lambda: Mine.build(block, 3, key=KEY))
    check_control(mine)
    for way in WAYS:
        others = {"copies", "yaml", *WAYS} - {way}
        with pytest.raises(AssertionError, match=f"Mine, {way}: "):
            check_control(replace(mine, way=way), without=tuple(others))
    with pytest.raises(AssertionError, match=r"Mine, yaml: .*4"):
        check_control(mine, options={"wrong": 1})
