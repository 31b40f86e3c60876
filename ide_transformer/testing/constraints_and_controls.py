"""Conformance of a constraint, and of a control."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .. import equation as eq
from ..errors import InputError
from .properties import (
    AbstractConformance,
    bits,
    central_difference,
    drawn_like,
    in_dtype,
    within,
)


# Places inside each interval.
_PLACES = np.array([0.0, 0.3, 0.8])


# One program for all cases of a constraint.
@eqx.filter_jit
def _call(constraint, method, *arguments):
    return getattr(constraint, method)(*arguments)


@eqx.filter_jit
def _derivatives(constraint, u, direction):
    """The Jacobian of the projection of the state, and its slope along the weights."""
    weights, rest = eqx.partition(constraint, eqx.is_inexact_array)
    slope = jax.jvp(lambda w: eqx.combine(w, rest).project(u), (weights,), (direction,))[1]
    return jax.jacrev(constraint.project)(u), slope


class _Constraint(AbstractConformance):
    """A constraint, and states off the set and on it."""

    kind = eq.AbstractConstraint

    def __init__(self, part, options, features):
        super().__init__(part, options, features)
        self.constraint: Any = in_dtype(part)
        self.u, self.rate = 2 * np.random.default_rng(0).normal(size=(2, 5, features))
        self.direction = drawn_like(self.constraint)
        self.on = self.project(self.u)

    def project(self, u: Any) -> Any:
        return np.asarray(_call(self.constraint, "project", u))

    def residual(self, u: Any) -> Any:
        return np.asarray(_call(self.constraint, "residual", u))

    def tangent(self, u: Any) -> Any:
        return np.asarray(_call(self.constraint, "tangent", u, self.rate))

    @within(0.0)
    def dtype(self):
        """projections have as many bits as state and weights, 32 or 16."""
        low = [in_dtype((self.constraint, self.u), x) for x in ("float32", "bfloat16")]
        return bits([eqx.filter_eval_shape(c.project, u) for c, u in low]), [32, 16]

    @within(1e-12)
    def tokens(self):
        """each token is projected by itself, and measured."""
        jacobian, _ = _derivatives(self.constraint, self.u, self.direction)
        seen = abs(np.asarray(jacobian)).max(axis=(1, 3))
        found = [
            seen - np.diag(np.diag(seen)),
            self.project(self.u[0]),
            self.residual(self.u[0]),
        ]
        return found, [0 * seen, self.on[0], self.residual(self.u)[0]]

    @within(1e-10)
    def on_set(self):
        """the residual of a projected state is zero."""
        return self.residual(self.on), np.zeros(len(self.u))

    @within(1e-10)
    def distance(self):
        """the residual is ‖u - project(u)‖, the root mean square over features."""
        square = _call(self.constraint, "mean", (self.u - self.on) ** 2)
        return self.residual(self.u), np.sqrt(square[..., 0])

    @within(0.0)
    def off_set(self):
        """the residual is positive at a token that the projection moves."""
        moves = abs(self.on - self.u).max(axis=-1) > 1e-3
        return (self.residual(self.u) > 1e-6)[moves], moves[moves]

    @within(1e-10)
    def idempotent(self):
        """the projection leaves the set where it is, so that steps may be small."""
        return self.project(self.on), self.on

    @within(1e-5)
    def tangents(self):
        """`tangent` is the derivative of the projection along a rate, on the set at 0+."""
        step = 1e-7
        ahead = (self.project(self.on + step * self.rate) - self.project(self.on)) / step
        apart = central_difference(self.project, self.u, self.rate)
        return [self.tangent(self.u), self.tangent(self.on)], [apart, ahead]

    @within(1e-2)
    def stays(self):
        """a small step along `tangent` leaves the set in second order only."""
        there = self.on + 1e-4 * self.tangent(self.on)
        return self.residual(there) / 1e-4, np.zeros(len(self.on))

    @within(1e-7)
    def gradient(self):
        """derivatives of the projection are those of finite differences."""
        jacobian, slope = _derivatives(self.constraint, self.u, self.direction)
        return [np.einsum("xiyj,yj->xi", jacobian, self.rate), slope], [
            central_difference(self.project, self.u, self.rate),
            central_difference(
                lambda c: _call(c, "project", self.u), self.constraint, self.direction
            ),
        ]

    @within(1e-12)
    def unproject(self):
        """the shift and the scale of a rescaling give back the state."""
        if not isinstance(self.constraint, eq.AbstractRescaling):
            raise InputError("It loses more than a shift and a scale.")
        scales = _call(self.constraint, "scales", self.u)
        return _call(self.constraint, "unproject", self.on, scales), self.u

    @within(1e-12)
    def nodal(self):
        """`at_points` of nodal functions, one for each feature, changes nothing."""
        space = eq.FunctionSpace(eq.Nodal(), self.features, eq.FeatureDomain(self.features))
        return _call(_call(self.constraint, "at_points", space), "project", self.u), self.on


def check_constraint(
    constraint: eq.AbstractConstraint,
    features: int,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every constraint does, in double precision, and says all that does not hold:

    - `copies`: it is the same pickled and copied;
    - `dtype`: projections have the dtype of state and weights, float32 or bfloat16;
    - `tokens`: each token is projected by itself;
    - `distance`: the residual is `‖u - project(u)‖`, the root mean square over features;
    - `on_set`, `off_set`: the residual is zero to rounding where a state was projected, and
      positive where the projection moves it;
    - `idempotent`: the projection leaves the set where it is, so that steps may be small; this
      and `distance` are not to hold for a map of checkpoints, such as `LayerNorm` with a vector
      of gains;
    - `tangents`: `tangent` is the derivative of the projection along a rate, on the set at
      `0+`; `stays`: a small step along it leaves the set in second order only;
    - `gradient`: derivatives with respect to state and weights are those of finite differences;
    - `unproject`: that of an `AbstractRescaling` gives back the state;
    - `nodal`: `at_points` of one nodal function for each feature changes nothing;
    - `yaml`: a configuration makes it.

    **Arguments:**

    - `constraint`: one with random weights, and no number like `eps` that moves the set by more
      than rounding.
    - `features`: width of the state.
    - `options`, `without`: see `check_operator`.

    **Example:** `check_constraint(ide.Sphere(gain=2.0), 4)`
    """
    with jax.enable_x64(True):
        _Constraint(constraint, options, features).check(without)


@eqx.filter_jit
def _blocks(control, depths):
    """The floating-point arrays of the blocks at some depths."""
    return jax.vmap(lambda t: eqx.filter(control(t), eqx.is_inexact_array))(depths)


@eqx.filter_jit
def _scanned(control, places):
    """The same at places inside of all intervals, as a march reads them."""

    def one(_, interval):
        at = jax.vmap(lambda s: eqx.filter(control.local(interval, s), eqx.is_inexact_array))
        return None, at(places)

    return jax.lax.scan(one, None, control.intervals(), control.num_intervals)[1]


@eqx.filter_jit
def _slope(control, direction, depths):
    weights, rest = eqx.partition(control, eqx.is_inexact_array)
    return jax.jvp(lambda w: _blocks(eqx.combine(w, rest), depths), (weights,), (direction,))[1]


# What a control becomes, and its blocks there: one program for each property.
@eqx.filter_jit
def _resampled(control, numbers, depths):
    """Resampled to each of some numbers of intervals, one after the other."""
    found = []
    for number in numbers:
        control = control.resample(number)
        found.append([control.num_intervals, control.horizon, _blocks(control, depths)])
    return found


@eqx.filter_jit
def _extended(control, horizon, depths):
    longer = control.extend(horizon)
    return [longer.horizon, _blocks(longer, depths)]


@eqx.filter_jit
def _tabulated(control):
    return tuple(_scanned(x, _PLACES) for x in (control.tabulate(_PLACES), control))


class _Control(AbstractConformance):
    kind = eq.AbstractControl

    def __init__(self, part, options):
        super().__init__(part, options, 2)
        self.control: Any = in_dtype(part)
        self.number, self.horizon = part.num_intervals, part.horizon
        starts = np.arange(self.number)[:, None]
        self.depths = np.ravel((starts + _PLACES) * part.interval_length)
        self.at_depths = jax.tree.map(np.asarray, _blocks(self.control, self.depths))

    @within(0.0)
    def yaml(self):
        """a configuration makes it, with as many intervals and such blocks as are asked for."""
        if not hasattr(self.part, "build"):
            raise InputError("It is not made from scratch.")

        def make_block(key):
            return (eq.FeatureIntegral(2, key=key),)

        def made():
            built = self.built(
                {eq.AbstractControl: dict(make_block=make_block, num_intervals=3)}
            )
            (operator,) = built(0.0)
            return built.num_intervals, operator.map.weight

        number, weight = eqx.filter_eval_shape(made)
        return [number, *weight.shape], [3, 2, 2]

    @within(1e-12)
    def march(self):
        """`local` in a scan over `intervals()` gives the blocks of the control itself."""
        scanned = _scanned(self.control, _PLACES)
        return jax.tree.map(
            lambda x: np.reshape(x, (-1, *x.shape[2:])), scanned
        ), self.at_depths

    @within(1e-12)
    def continuous(self):
        """with continuous=True blocks do not jump between intervals."""
        if not self.control.continuous:
            raise InputError("It does not say so.")
        ends = jax.tree.map(np.asarray, _scanned(self.control, np.array([0.0, 1.0])))
        return tuple(
            jax.tree.map(lambda x, cut=cut: x[cut], ends)
            for cut in (np.s_[:-1, 1], np.s_[1:, 0])
        )

    @within(1e-7)
    def gradient(self):
        """the derivative along the weights is that of finite differences."""
        direction = drawn_like(self.control)
        found = _slope(self.control, direction, self.depths)
        return found, central_difference(
            lambda control: _blocks(control, self.depths), self.control, direction
        )

    @within(1e-12)
    def resample(self):
        """on three times as many intervals of the same depth, and back, it has the same
        blocks."""
        numbers = 3 * self.number, self.number
        return _resampled(self.control, numbers, self.depths), [
            [number, self.horizon, self.at_depths] for number in numbers
        ]

    @within(1e-12)
    def coarse(self):
        """on any number of intervals its depth is the same, and blocks are finite."""
        both = [_resampled(self.control, (n,), np.zeros(1))[0] for n in (1, self.number + 1)]
        finite = [np.isfinite(y) for *_, blocks in both for y in jax.tree.leaves(blocks)]
        return [[horizon for _, horizon, _ in both], finite], [
            [self.horizon] * 2,
            [np.ones_like(x) for x in finite],
        ]

    @within(1e-12)
    def extend(self):
        """at twice the depth, if it is not refused, blocks repeat."""
        twice = np.append(self.depths, self.depths + self.horizon)
        expected = jax.tree.map(lambda x: np.concatenate([x, x]), self.at_depths)
        found = _extended(self.control, 2 * self.horizon, twice)
        return found, [2 * self.horizon, expected]

    @within(1e-12)
    def tabulate(self):
        """a table has the same blocks at its places."""
        return _tabulated(self.control)

    @within(0.0)
    def precision(self):
        """in low precision the matrices of a block have 16 bits, and vectors 64, by
        `depth_axes`."""
        low = eqx.filter_eval_shape(eq.low_precision(self.control, "bfloat16"), 0.0)
        block = jax.tree.leaves(self.at_depths)
        return bits(low), [16 if x.ndim > 2 else 64 for x in block]


def check_control(
    control: eq.AbstractControl,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every control does, in double precision, and says all that does not hold:

    - `copies`: it is the same pickled and copied;
    - `march`: a scan over `intervals()`, with `local`, gives the blocks that it has at these
      depths, at the boundaries those of the interval that begins there;
    - `continuous`: where it says so, blocks do not jump at boundaries;
    - `gradient`: the derivative of blocks with respect to the weights is that of finite
      differences;
    - `resample`, `coarse`: on more intervals, and back, it has the same blocks, and on any
      number of them the same depth;
    - `extend`: if it is not refused, blocks repeat;
    - `tabulate`: a table has the same blocks;
    - `precision`: `depth_axes` tells matrices from vectors;
    - `yaml`: a configuration makes it.

    **Arguments:**

    - `control`: one with random weights, of two intervals or more.
    - `options`, `without`: see `check_operator`.

    **Example:** `check_control(ide.Tied((ide.FeedForward(4, key=key),), 3))`
    """
    with jax.enable_x64(True):
        _Control(control, options).check(without)
