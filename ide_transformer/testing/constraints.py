"""What every constraint does."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..equation import (
    AbstractConstraint,
    AbstractRescaling,
    FeatureDomain,
    FunctionSpace,
    Nodal,
)
from ..errors import InputError
from ..training.build import offers_of
from ..training.config import ModelConfig
from .properties import Property, built, central_difference, check, copies, drawn_like, in_dtype


@eqx.filter_jit
def _project(constraint, u):
    return constraint.project(u)


@eqx.filter_jit
def _residual(constraint, u):
    return constraint.residual(u)


@eqx.filter_jit
def _tangent(constraint, u, du):
    return constraint.tangent(u, du)


@eqx.filter_jit
def _derivatives(constraint, u, direction):
    """The Jacobian of the projection of the state, and its slope along the weights."""
    weights, rest = eqx.partition(constraint, eqx.is_inexact_array)
    slope = jax.jvp(lambda w: eqx.combine(w, rest).project(u), (weights,), (direction,))[1]
    return jax.jacrev(constraint.project)(u), slope


class _Case(NamedTuple):
    """A constraint, a state off the set, and a rate."""

    constraint: Any
    u: np.ndarray
    rate: np.ndarray
    options: Mapping[str, Any]

    @property
    def on_set(self) -> np.ndarray:
        return np.asarray(_project(self.constraint, self.u))


def _yaml(x: _Case):
    if not x.constraint.configurable:
        raise InputError("A configuration does not name it.")
    offers = offers_of(ModelConfig(width=x.u.shape[-1], heads=1), causal=False)
    made = built(x.constraint, AbstractConstraint, x.options, offers)
    return type(made) is type(x.constraint), True


def _dtype(x: _Case):
    kinds = (jnp.float32, jnp.bfloat16)
    low = [in_dtype((x.constraint, x.u), dtype) for dtype in kinds]
    found = [eqx.filter_eval_shape(c.project, u).dtype for c, u in low]
    return [jnp.finfo(x).bits for x in found], [jnp.finfo(x).bits for x in kinds]


def _tokens(x: _Case):
    """The Jacobian between different tokens, and a token alone."""
    jacobian, _ = _derivatives(x.constraint, x.u, drawn_like(x.constraint))
    seen = abs(np.asarray(jacobian)).max(axis=(1, 3))
    alone = _project(x.constraint, x.u[0]), _residual(x.constraint, x.u[0])
    both = x.on_set[0], np.asarray(_residual(x.constraint, x.u))[0]
    return [seen - np.diag(np.diag(seen)), *alone], [np.zeros_like(seen), *both]


def _off_set(x: _Case):
    """Whether the residual is positive where the projection moves a token."""
    moves = abs(x.on_set - x.u).max(axis=-1) > 1e-3
    return (np.asarray(_residual(x.constraint, x.u)) > 1e-6)[moves], moves[moves]


def _tangents(x: _Case):
    """Of a state off the set, by central differences, and on it, by one-sided ones."""
    step, on_set = 1e-7, x.on_set
    found = [_tangent(x.constraint, u, x.rate) for u in (x.u, on_set)]
    apart = central_difference(lambda u: _project(x.constraint, u), x.u, x.rate)
    ahead = np.asarray(_project(x.constraint, on_set + step * x.rate))
    return found, [apart, (ahead - np.asarray(_project(x.constraint, on_set))) / step]


def _stays(x: _Case):
    """Along the tangential part of a rate the distance from the set is of second order."""
    step, on_set = 1e-4, x.on_set
    there = on_set + step * np.asarray(_tangent(x.constraint, on_set, x.rate))
    return np.asarray(_residual(x.constraint, there)) / step, np.zeros(len(on_set))


def _gradient(x: _Case):
    direction = drawn_like(x.constraint)
    jacobian, slope = _derivatives(x.constraint, x.u, direction)
    along = np.einsum("xiyj,yj->xi", jacobian, x.rate)
    return [along, slope], [
        central_difference(lambda u: _project(x.constraint, u), x.u, x.rate),
        central_difference(lambda c: _project(c, x.u), x.constraint, direction),
    ]


def _unproject(x: _Case):
    if not isinstance(x.constraint, AbstractRescaling):
        raise InputError("It loses more than a shift and a scale.")
    back = eqx.filter_jit(lambda c, u: c.unproject(c.project(u), c.scales(u)))
    return back(x.constraint, x.u), x.u


def _nodal(x: _Case):
    features = x.u.shape[-1]
    space = FunctionSpace(Nodal(), features, FeatureDomain(features))
    at_points = eqx.filter_jit(lambda c: c.at_points(space))
    return _project(at_points(x.constraint), x.u), x.on_set


_PROPERTIES = {
    "copies": Property(
        lambda x: copies(x.constraint), 0, "it is not the same pickled, or deep-copied"
    ),
    "yaml": Property(_yaml, 0, "a configuration does not make it"),
    "dtype": Property(_dtype, 0, "a state of so many bits is projected on one of others"),
    "tokens": Property(_tokens, 1e-12, "a token is not projected by itself"),
    "on_set": Property(
        lambda x: (_residual(x.constraint, x.on_set), np.zeros(len(x.u))),
        1e-10,
        "the residual of a projected state is not zero",
    ),
    "off_set": Property(
        _off_set, 0, "the residual is zero at a token that the projection moves"
    ),
    "idempotent": Property(
        lambda x: (_project(x.constraint, x.on_set), x.on_set),
        1e-10,
        "a projected state is projected on another one; the limit of small steps may not exist",
    ),
    "tangent": Property(
        _tangents,
        1e-5,
        "`tangent` is not the derivative of `project` along a rate, off the set or on it",
    ),
    "stays": Property(
        _stays, 1e-2, "a small step along `tangent` leaves the set in first order"
    ),
    "gradient": Property(
        _gradient, 1e-7, "derivatives of the projection are not those of finite differences"
    ),
    "unproject": Property(_unproject, 1e-12, "shift and scale do not give back the state"),
    "nodal": Property(
        _nodal, 1e-12, "`at_points` of nodal functions, one for each feature, changes it"
    ),
}


def check_constraint(
    constraint: AbstractConstraint,
    features: int,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every constraint does, in double precision:

    - `copies`: it is the same pickled and deep-copied;
    - `yaml`: a configuration makes it, by `module:Class`;
    - `dtype`: projections have the dtype of state and weights, float32 or bfloat16;
    - `tokens`: each token is projected by itself;
    - `on_set`, `off_set`: the residual is zero to rounding where a state was projected, and
      positive where the projection moves it;
    - `idempotent`: the projection leaves the set where it is, so that steps may be small; it is
      not to hold for a map of checkpoints, such as `LayerNorm` with a vector of gains;
    - `tangent`: it is the derivative of the projection along a rate, on the set at `0+`;
    - `stays`: a small step along it leaves the set in second order only;
    - `gradient`: derivatives with respect to state and weights are those of finite differences;
    - `unproject`: that of an `AbstractRescaling` gives back the state;
    - `nodal`: `at_points` of one nodal function for each feature changes nothing.

    **Arguments:**

    - `constraint`: one with random weights, and no number like `eps` that moves the set by more
      than rounding.
    - `features`: width of the state.
    - `options`: what a configuration has to give.
    - `without`: properties that it is not to have.

    **Raises:** `AssertionError` that names the property, the numbers, and what they mean.

    **Example:** `check_constraint(ide.Sphere(gain=2.0), 4)`
    """
    with jax.enable_x64(True):
        u, rate = 2 * np.random.default_rng(0).normal(size=(2, 5, features))
        case = _Case(in_dtype(constraint), u, rate, options)
        check(constraint, case, _PROPERTIES, without)
