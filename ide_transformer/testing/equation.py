"""Checks operators, constraints and controls."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import equation as eq
from ..errors import InputError
from .properties import AbstractProperties, Names, Options, in_dtype, slopes


def check_operator(
    operator: eq.AbstractOperator,
    features: int,
    domain: eq.TokenDomain | None = None,
    *,
    options: Options | None = None,
    without: Names = (),
) -> None:
    """Checks the properties of an operator in float64. Raises `AssertionError` with all that do
    not hold. A property is skipped if the operator raises an `InputError` for it.

    **Arguments:**

    - `operator`: an operator with random weights, and with its source if that is on a second
      domain.
    - `features`: width of the state.
    - `domain`: four or more increasing points of equal weights; `None` for six tokens.
    - `options`: the options by which a configuration builds the operator.
    - `without`: names of properties that are not checked.

    **Example:** `check_operator(ide.Damping(0.5), 4, options={"rate": 0.5})`
    """
    with jax.enable_x64(True):
        OperatorProperties(operator, features, domain, options).check(without)


def check_constraint(
    constraint: eq.AbstractConstraint,
    features: int,
    *,
    options: Options | None = None,
    without: Names = (),
) -> None:
    """Checks the properties of a constraint; see `check_operator`. It must have random weights,
    and no `eps` that moves the set by more than rounding. `idempotent` does not hold for
    normalisations of checkpoints, such as `LayerNorm` with a vector of gains."""
    with jax.enable_x64(True):
        ConstraintProperties(constraint, features, options).check(without)


def check_control(
    control: eq.AbstractControl, *, options: Options | None = None, without: Names = ()
) -> None:
    """Checks the properties of a control with at least two intervals; see `check_operator`."""
    with jax.enable_x64(True):
        ControlProperties(control, options).check(without)


@eqx.filter_jit
def rate_of(operator, u, domain):
    return operator(u, domain)


class OperatorProperties(AbstractProperties):
    """Properties of an operator on six tokens, or on the points of a `domain`. `points` is the
    domain with weights instead of a grid, if the operator takes weights."""

    kind = eq.AbstractOperator
    properties = "copies", "batches", "gradient", "padding", "permutation", "yaml"

    def __init__(self, operator, features, domain=None, options=None):
        super().__init__(operator, options, features)
        domain = in_dtype(eq.TokenDomain.uniform(6) if domain is None else domain)
        self.domain = domain
        num_tokens = domain.num_tokens
        states = np.random.default_rng(0).normal(size=(2, num_tokens, features))
        self.u, self.other = jnp.asarray(states)
        self.operator = in_dtype(operator).at(0.5, None)
        self.ones = np.ones(num_tokens)
        # The last two are padding.
        self.is_real = (np.arange(num_tokens) < num_tokens - 2).astype(float)
        self.points = eq.TokenDomain(domain.points, jnp.ones(num_tokens), period=domain.period)
        try:
            self.rate = rate_of(self.operator, self.u, self.points)
        except InputError:
            self.points = self.domain
            self.rate = rate_of(self.operator, self.u, self.points)

    def weighted(self, weights: Any, places: Any = slice(None)) -> eq.TokenDomain:
        """The points at some places, with other weights."""
        if self.points.weights is None:
            raise InputError("The operator takes no weights.")
        points = self.points.points[places]
        return eq.TokenDomain(points, jnp.asarray(weights), period=self.points.period)

    def batches(self):
        """a batch has the rate of each of its samples."""
        states = jnp.stack([self.u, self.other])
        rates = [rate_of(self.operator, u, self.points) for u in states]
        return rate_of(self.operator, states, self.points), np.stack(rates), 1e-12

    def gradient(self):
        """the gradient by weights and state equals finite differences."""
        return slopes(rate_of, (self.operator, self.u), self.points)

    def padding(self):
        """tokens of weight zero are not seen."""
        domain = self.weighted(self.is_real)
        other = jnp.where(self.is_real[:, None] > 0, self.u, 1e3 * self.other)
        rates = [rate_of(self.operator, u, domain) for u in (other, self.u)]
        return rates[0][:-2], rates[1][:-2]

    def permutation(self):
        """rates depend on domain.points, not on their order."""
        order = np.random.default_rng(1).permutation(len(self.u))
        domain = self.weighted(self.ones, order)
        return rate_of(self.operator, self.u[order], domain), self.rate[order], 1e-12


@eqx.filter_jit
def call(constraint, method, *arguments):
    return getattr(constraint, method)(*arguments)


class ConstraintProperties(AbstractProperties):
    """Properties of a constraint, with states off the set (`u`) and on it (`on`)."""

    kind = eq.AbstractConstraint
    properties = "copies", "on_set", "idempotent", "tangents", "gradient", "yaml"

    def __init__(self, constraint, features, options=None):
        super().__init__(constraint, options, features)
        self.constraint = in_dtype(constraint)
        states = 2 * np.random.default_rng(0).normal(size=(2, 5, features))
        self.u, self.rate = jnp.asarray(states)
        self.project = partial(call, self.constraint, "project")
        self.residual = partial(call, self.constraint, "residual")
        self.on = self.project(self.u)

    def on_set(self):
        """the residual of a projected state is zero."""
        return self.residual(self.on), np.zeros(len(self.u)), 1e-10

    def idempotent(self):
        """the projection leaves the set where it is, so that steps may be small."""
        return self.project(self.on), self.on, 1e-10

    def tangents(self):
        """`tangent` is the derivative of the projection along a rate, on the set at 0+."""
        tangents = [call(self.constraint, "tangent", u, self.rate) for u in (self.u, self.on)]
        step = 1e-7 * self.rate
        apart = self.project(self.u + step) - self.project(self.u - step)
        ahead = self.project(self.on + step) - self.project(self.on)
        return tangents, [apart / 2e-7, ahead / 1e-7], 1e-5

    def gradient(self):
        """the gradient of the projection equals finite differences."""
        return slopes(call, (self.constraint, "project", self.u))


@eqx.filter_jit
def blocks(control, depths):
    """The floating-point arrays of the blocks at some depths."""
    return jax.vmap(lambda t: eqx.filter(control(t), eqx.is_inexact_array))(depths)


@eqx.filter_jit
def scan_blocks(control, places):
    """The floating-point arrays at places inside all intervals, as a march reads them."""

    def read(_, interval):
        at = jax.vmap(lambda s: eqx.filter(control.local(interval, s), eqx.is_inexact_array))
        return None, at(places)

    return jax.lax.scan(read, None, control.intervals(), control.layers)[1]


class ControlProperties(AbstractProperties):
    """Properties of a control, with its blocks at some depths."""

    kind = eq.AbstractControl
    properties = "copies", "march", "gradient", "yaml"
    # Inside of each interval.
    places = np.array([0.0, 0.3, 0.8])

    def __init__(self, control, options=None):
        super().__init__(control, options, 2)
        self.control = in_dtype(control)
        starts = np.arange(control.layers)[:, None]
        self.depths = np.ravel((starts + self.places) * control.interval_length)
        self.at_depths = jax.tree.map(np.asarray, blocks(self.control, self.depths))

    def march(self):
        """`local` in a scan over `intervals()` gives the blocks of the control itself."""
        scan = scan_blocks(self.control, self.places)
        flat = jax.tree.map(lambda x: np.reshape(x, (-1, *x.shape[2:])), scan)
        return flat, self.at_depths, 1e-12

    def gradient(self):
        """the gradient of blocks by the weights equals finite differences."""
        return slopes(blocks, (self.control,), self.depths)

    @property
    def offers(self):
        if not hasattr(self.part, "build"):
            raise InputError("A control without `build` is not made from scratch.")
        offers = dict(make_block=lambda key: (eq.FeatureIntegral(2, key=key),), layers=3)
        return {eq.AbstractControl: offers}
