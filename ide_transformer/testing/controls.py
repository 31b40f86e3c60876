"""What every control does."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..equation import AbstractControl, FeatureIntegral, low_precision
from ..errors import InputError
from .properties import Property, built, central_difference, check, copies, drawn_like, in_dtype


# Places inside each interval.
_PLACES = np.array([0.0, 0.3, 0.8])


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


class _Case(NamedTuple):
    control: Any
    options: Mapping[str, Any]

    def at(self, depths: Any) -> Any:
        return jax.tree.map(np.asarray, _blocks(self.control, np.asarray(depths)))

    def inside(self, places: np.ndarray) -> np.ndarray:
        """Depths at places inside of each interval."""
        starts = np.arange(self.control.num_intervals)[:, None]
        return (starts + places) * self.control.interval_length


def _yaml(x: _Case):
    if not x.control.configurable or not hasattr(x.control, "build"):
        raise InputError("A configuration does not name it.")
    offered = {"make_block": lambda key: (FeatureIntegral(2, key=key),), "num_intervals": 3}
    made = built(x.control, AbstractControl, x.options, {AbstractControl: offered})
    (operator,) = eqx.filter_eval_shape(made, 0.0)
    numbers = [made.num_intervals, *operator.map.weight.shape]
    return [type(made) is type(x.control), numbers], [True, [3, 2, 2]]


def _march(x: _Case):
    depths = x.inside(_PLACES)
    found = jax.tree.map(
        lambda y: np.asarray(y).reshape(depths.size, *y.shape[2:]), _scanned(x.control, _PLACES)
    )
    return found, x.at(depths.ravel())


def _continuous(x: _Case):
    if not x.control.continuous:
        raise InputError("It does not say so.")
    ends = _scanned(x.control, np.array([0.0, 1.0]))
    first, last = (jax.tree.map(lambda y, i=i: np.asarray(y)[:, i], ends) for i in (0, 1))
    return (jax.tree.map(lambda y: y[:-1], last), jax.tree.map(lambda y: y[1:], first))


def _gradient(x: _Case):
    direction, depths = drawn_like(x.control), x.inside(_PLACES).ravel()
    found = jax.tree.leaves(_slope(x.control, direction, depths))
    expected = [
        central_difference(
            lambda control, i=i: jax.tree.leaves(_blocks(control, depths))[i],
            x.control,
            direction,
        )
        for i in range(len(found))
    ]
    return found, expected


def _refined(x: _Case):
    """Three times as many intervals, and the first number again."""
    number, depths = x.control.num_intervals, x.inside(_PLACES).ravel()
    fine = x.control.resample(3 * number)
    back = fine.resample(number)
    expected = x.at(depths)
    return (
        [[y.num_intervals, y.horizon] for y in (fine, back)]
        + [_blocks(y, depths) for y in (fine, back)],
        [[n, x.control.horizon] for n in (3 * number, number)] + [expected, expected],
    )


def _coarse(x: _Case):
    coarse = [x.control.resample(n) for n in (1, x.control.num_intervals + 1)]
    found = [
        np.isfinite(y).all() for c in coarse for y in jax.tree.leaves(_blocks(c, np.zeros(1)))
    ]
    return [[c.horizon for c in coarse], found], [[x.control.horizon] * 2, [True] * len(found)]


def _extended(x: _Case):
    """An `InputError` where θ is not the same at all depths."""
    longer = x.control.extend(2 * x.control.horizon)
    depths = x.inside(_PLACES).ravel()
    found = _blocks(longer, np.append(depths, depths + x.control.horizon))
    expected = jax.tree.map(lambda y: np.concatenate([y, y]), x.at(depths))
    return [longer.horizon, found], [2 * x.control.horizon, expected]


def _tabulated(x: _Case):
    table = x.control.tabulate(_PLACES)
    return _scanned(table, _PLACES), _scanned(x.control, _PLACES)


def _precision(x: _Case):
    """bfloat16 for matrices, the dtype that they have for vectors."""
    low = eqx.filter_eval_shape(low_precision(x.control, "bfloat16"), 0.0)
    pairs = zip(
        *(
            jax.tree.leaves(
                eqx.filter(
                    y, lambda z: hasattr(z, "dtype") and jnp.issubdtype(z.dtype, jnp.inexact)
                )
            )
            for y in (low, eqx.filter_eval_shape(x.control, 0.0))
        ),
        strict=True,
    )
    bits = [(jnp.finfo(a.dtype).bits, 16 if b.ndim > 1 else 64) for a, b in pairs]
    return [a for a, _ in bits], [b for _, b in bits]


_PROPERTIES = {
    "copies": Property(
        lambda x: copies(x.control), 0, "it is not the same pickled, or deep-copied"
    ),
    "yaml": Property(_yaml, 0, "a configuration does not make it of three intervals"),
    "march": Property(
        _march,
        1e-12,
        "`local` in a scan over `intervals()` gives other blocks than the control",
    ),
    "continuous": Property(
        _continuous, 1e-12, "continuous=True, but the block jumps between two intervals"
    ),
    "gradient": Property(
        _gradient, 1e-7, "the derivative along the weights is not that of finite differences"
    ),
    "resample": Property(
        _refined,
        1e-12,
        "on three times as many intervals of the same depth, or back, it has other blocks",
    ),
    "coarse": Property(
        _coarse, 1e-12, "resampled to other boundaries its depth changes, or it is not finite"
    ),
    "extend": Property(_extended, 1e-12, "extended to twice the depth it has other blocks"),
    "tabulate": Property(
        _tabulated, 1e-12, "tabulated, it has other blocks at the places of the table"
    ),
    "precision": Property(
        _precision,
        0,
        "in low precision, matrices of a block have so many bits; see `depth_axes`",
    ),
}


def check_control(
    control: AbstractControl,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every control does, in double precision:

    - `copies`: it is the same pickled and deep-copied;
    - `yaml`: where it has `build`, a configuration makes it, by `module:Class`;
    - `march`: a scan over `intervals()`, with `local`, gives the blocks that it has at these
      depths, at the boundaries those of the interval that begins there;
    - `continuous`: where it says so, blocks do not jump at boundaries;
    - `gradient`: the derivative of blocks with respect to the weights is that of finite
      differences;
    - `resample`: on more intervals, and back, it has the same blocks; `coarse`: to others the
      same depth;
    - `extend`: if it is not refused, blocks repeat;
    - `tabulate`: a table has the same blocks;
    - `precision`: `depth_axes` tells matrices from vectors.

    **Arguments:**

    - `control`: one with random weights, of two intervals or more.
    - `options`: what a configuration has to give.
    - `without`: properties that it is not to have.

    **Raises:** `AssertionError` that names the property, the numbers, and what they mean.

    **Example:** `check_control(ide.Tied((ide.FeedForward(4, key=key),), 3))`
    """
    with jax.enable_x64(True):
        check(control, _Case(in_dtype(control), options), _PROPERTIES, without)
