"""What every operator does."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..equation import (
    AbstractExactOperator,
    AbstractOperator,
    AbstractSourcedOperator,
    AbstractTokenIntegral,
    FeatureDomain,
    FunctionSpace,
    Nodal,
    TokenDomain,
    lattice,
)
from ..errors import InputError
from ..training.build import offers_of
from ..training.config import ModelConfig
from .properties import (
    Property,
    built,
    central_difference,
    check,
    copies,
    drawn_like,
    in_dtype,
    one_sided_difference,
)


# One program for all cases of an operator, and one for all of their derivatives.
@eqx.filter_jit
def _rate(operator, u, domain):
    return operator(u, domain)


@eqx.filter_jit
def _derivatives(operator, u, domain):
    """Of each number of the rate, with respect to weights, state and quadrature weights."""
    weights, rest = eqx.partition(operator, eqx.is_inexact_array)

    def rate(weights, u, quadrature):
        return eqx.combine(weights, rest)(u, replace(domain, weights=quadrature))

    _, pullback = jax.vjp(rate, weights, u, domain.weights)
    units = jnp.eye(u.size, dtype=u.dtype).reshape(-1, *u.shape)
    return jax.vmap(pullback)(units)


class _Case(NamedTuple):
    """An operator, two states on a domain, directions of the weights and of the state, and
    options in a configuration. `points` is the domain without its grid, with weights, where
    the operator takes such."""

    operator: Any
    states: np.ndarray
    domain: TokenDomain
    points: TokenDomain
    directions: tuple[Any, np.ndarray]
    options: Mapping[str, Any]

    @property
    def u(self) -> np.ndarray:
        return self.states[0]

    def rate(self, u: Any = None) -> Any:
        return np.asarray(_rate(self.operator, self.u if u is None else u, self.points))

    def weighted(self, weights: Any, places: Any = slice(None)) -> TokenDomain:
        """Some of the points, with other weights."""
        if self.points.weights is None:
            raise InputError("The operator takes no weights.")
        points = jnp.asarray(np.asarray(self.points.points)[places])
        return TokenDomain(points, jnp.asarray(weights), period=self.points.period)

    def of_tokens(self, tokens: Any) -> Any:
        """The operator with the source of some of the tokens."""
        source = getattr(self.operator, "source", None)
        if source is None or self.operator.own_domain:
            return self.operator
        return self.operator.with_source(jnp.asarray(np.asarray(source)[tokens]))

    @property
    def of_batch(self) -> Any:
        """The operator with its source for both states."""
        source = getattr(self.operator, "source", None)
        if source is None:
            return self.operator
        domain = self.operator.source_domain
        return self.operator.with_source(jnp.asarray(np.stack([source, source])), domain)

    @property
    def there(self) -> np.ndarray:
        """Which tokens are no padding."""
        return np.arange(len(self.u)) < len(self.u) - 2


def _yaml(x: _Case):
    if not x.operator.configurable:
        raise InputError("A configuration does not name it.")
    features = x.u.shape[-1]
    offers = offers_of(ModelConfig(width=features, heads=1), causal=False)
    return type(built(x.operator, AbstractOperator, x.options, offers)) is type(
        x.operator
    ), True


def _dtype(x: _Case):
    found, expected = [], []
    for dtype in (jnp.float32, jnp.bfloat16):
        operator, u = in_dtype((x.operator, x.u), dtype)
        try:
            rate = eqx.filter_eval_shape(operator, u, x.domain)
        except (NotImplementedError, TypeError, ValueError):
            if dtype == jnp.float32:
                raise
            # Fourier transforms have no lower precision.
            continue
        found.append(jnp.finfo(rate.dtype).bits)
        expected.append(jnp.finfo(dtype).bits)
    return found, expected


def _batches(x: _Case):
    if x.points.weights is None:
        domain, each = x.points, [x.points, x.points]
    else:
        weights = np.stack([np.ones(len(x.u)), x.there])
        domain, each = x.weighted(weights), list(map(x.weighted, weights))
    pairs = zip(x.states, each, strict=True)
    expected = [np.asarray(_rate(x.operator, u, domain)) for u, domain in pairs]
    return _rate(x.of_batch, x.states, domain), np.stack(expected)


def _padding(x: _Case):
    domain = x.weighted(x.there.astype(float))
    other = np.where(x.there[:, None], x.u, 1e3 * x.states[1])
    rates = (np.asarray(_rate(x.operator, u, domain))[x.there] for u in (other, x.u))
    gradients = jax.tree.leaves(_derivatives(x.operator, x.u, domain))
    finite = [np.isfinite(y).all() for y in gradients]
    return [next(rates), finite], [next(rates), [True] * len(finite)]


def _gradient(x: _Case):
    slopes = []
    jacobians = _derivatives(x.operator, x.u, x.points)[:2]
    for jacobian, direction in zip(jacobians, x.directions, strict=True):
        pairs = zip(jax.tree.leaves(jacobian), jax.tree.leaves(direction), strict=True)
        parts = (np.asarray(j).reshape(x.u.size, -1) @ np.ravel(d) for j, d in pairs)
        slopes.append(sum(parts, np.zeros(x.u.size)).reshape(x.u.shape))
    return slopes, [
        central_difference(
            lambda operator: _rate(operator, x.u, x.points), x.operator, x.directions[0]
        ),
        central_difference(x.rate, x.u, x.directions[1]),
    ]


def _weights(x: _Case):
    weights, rate = x.there.astype(float), np.linspace(1, 2, len(x.u))
    jacobian = _derivatives(x.operator, x.u, x.weighted(weights))[2]
    return np.asarray(jacobian) @ rate, one_sided_difference(
        lambda w: np.ravel(_rate(x.operator, x.u, x.weighted(w))), weights, rate
    )


def _jacobian(x: _Case):
    """`[tokens, others]`, the largest derivative of the rate at a token by the state at
    another."""
    of_state = _derivatives(x.operator, x.u, x.points)[1]
    return abs(np.asarray(of_state)).reshape(*x.u.shape, *x.u.shape).max(axis=(1, 3))


def _causal(x: _Case):
    if not getattr(x.operator.innermost, "causal", False):
        raise InputError("It does not say so.")
    return np.triu(_jacobian(x), 1), np.zeros((len(x.u), len(x.u)))


def _pointwise(x: _Case):
    if not x.operator.pointwise:
        raise InputError("It does not say so.")
    seen = _jacobian(x)
    return seen - np.diag(np.diag(seen)), np.zeros_like(seen)


def _permutation(x: _Case):
    order = np.random.default_rng(1).permutation(len(x.u))
    domain = x.weighted(np.ones(len(x.u)), order)
    return _rate(x.of_tokens(order), x.u[order], domain), x.rate()[order]


def _quadrature(x: _Case):
    """The last point at the place of the second one."""
    same, whole = np.arange(len(x.u)), np.ones(len(x.u))
    same[-1], whole[-1] = 1, 0
    halves = np.where(same == 1, 0.5, whole)
    operator, u = x.of_tokens(same), x.u[same]
    found, expected = (_rate(operator, u, x.weighted(w, same)) for w in (halves, whole))
    return found, expected


def _march(x: _Case):
    if not isinstance(x.operator, AbstractTokenIntegral):
        raise InputError("It does not go on with new tokens.")
    whole, last = [], np.arange(len(x.u))[-2:]

    @eqx.filter_jit
    def both(operator, new, u, domain):
        operator.over(u, domain, lambda own, d: whole.append(own) or (own, d))
        seen, queries = whole.pop(), TokenDomain(domain.points[last], period=domain.period)
        rate = new.over(u[last], queries, lambda own, _: whole.append(own) or (seen, domain))
        return (rate, whole.pop()), jax.tree.map(lambda y: y[-2:], seen)

    (rate, own), expected = both(x.operator, x.of_tokens(last), jnp.asarray(x.u), x.points)
    return [rate, own], [x.rate()[last], expected]


def _nodal(x: _Case):
    features = x.u.shape[-1]
    space = FunctionSpace(Nodal(), features, FeatureDomain(features))
    at_points = eqx.filter_jit(lambda operator: operator.at_points(space))
    return _rate(at_points(x.operator), x.u, x.points), x.rate()


def _flow(x: _Case):
    if not isinstance(x.operator, AbstractExactOperator):
        raise InputError("It knows no flow.")

    @eqx.filter_jit
    def flow(operator, u, h):
        return jax.jvp(lambda h: operator.flow(u, x.points, h), (h,), (jnp.ones_like(h),))

    later, slope = flow(x.operator, x.u, 0.5)
    half, _ = flow(x.operator, x.u, 0.25)
    still, _ = flow(x.operator, x.u, 0.0)
    return [slope, flow(x.operator, half, 0.25)[0], still], [x.rate(later), later, x.u]


_ROUNDING = 1e-12
_PROPERTIES = {
    "copies": Property(
        lambda x: copies(x.operator), 0, "it is not the same pickled, or deep-copied"
    ),
    "yaml": Property(_yaml, 0, "a configuration does not make it; give options"),
    "dtype": Property(_dtype, 0, "a state and weights of so many bits have no rate of as many"),
    "compiled": Property(
        lambda x: (x.rate(), jax.jit(lambda u: x.operator(u, x.domain))(x.u)),
        _ROUNDING,
        "on a domain that a program is given it has another rate than on one that it knows",
    ),
    "batches": Property(
        _batches,
        _ROUNDING,
        "the rate of a batch, with weights of each sample, is not that of its samples",
    ),
    "gradient": Property(
        _gradient,
        1e-7,
        "derivatives with respect to weights or state are not those of finite differences",
    ),
    "weights": Property(
        _weights,
        1e-6,
        "derivatives with respect to domain.weights, some of them 0, are not those of finite "
        "differences",
    ),
    "padding": Property(
        _padding, 0, "tokens of weight zero, which are padding, change rates or gradients"
    ),
    "causal": Property(
        _causal, 0, "causal=True, but the rate at a token (row) depends on a later one (column)"
    ),
    "pointwise": Property(
        _pointwise,
        0,
        "pointwise=True, but the rate at a token (row) depends on another one (column)",
    ),
    "permutation": Property(
        _permutation,
        _ROUNDING,
        "rates depend on the order in which points stand, not on domain.points",
    ),
    "quadrature": Property(
        _quadrature,
        _ROUNDING,
        "a point is not two of half its weight: tokens are counted, not weighted by "
        "domain.weights",
    ),
    "march": Property(
        _march, _ROUNDING, "`over` gives the last tokens not the rate that they have among all"
    ),
    "nodal": Property(
        _nodal, _ROUNDING, "`at_points` of nodal functions, one for each feature, changes it"
    ),
    "flow": Property(
        _flow, 1e-10, "`flow` is not the solution of u_t = A(u) that begins with the state"
    ),
}


def check_operator(
    operator: AbstractOperator,
    features: int,
    domain: TokenDomain | None = None,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every operator does, in double precision:

    - `copies`: it is the same pickled and deep-copied;
    - `yaml`: a configuration makes it, by `module:Class`;
    - `dtype`: rates have the dtype of state and weights, float64, float32 or bfloat16;
    - `compiled`: the rate is the same on a domain that a program knows, or is given;
    - `batches`: a batch is each of its samples, with padding of its own;
    - `gradient`: derivatives with respect to the weights and the state are those of finite
      differences;
    - `weights`: so are those with respect to `domain.weights`, also where one is 0;
    - `padding`: tokens of weight zero are not seen, and gradients stay finite;
    - `causal`, `pointwise`: where the class says so, other derivatives are exactly zero;
    - `permutation`: the order in which points stand does not matter;
    - `quadrature`: a point is two of half its weight;
    - `march`: an `AbstractTokenIntegral` goes on with new tokens alone;
    - `nodal`: `at_points` of one nodal function for each feature changes nothing;
    - `flow`: that of an `AbstractExactOperator` solves its equation.

    What the operator refuses by an `InputError`, such as weights where it needs a grid, is not
    compared.

    **Arguments:**

    - `operator`: one with random weights, and with its source, if that has a domain of its own.
    - `features`: width of the state.
    - `domain`: four points or more on a line, in increasing order, of equal weights; `None` for
      six tokens of a text.
    - `options`: what a configuration has to give.
    - `without`: properties that it is not to have.

    **Raises:** `AssertionError` that names the property, the numbers, and what they mean.

    **Example:** `check_operator(ide.Damping(0.5), 4, options={"rate": 0.5})`
    """
    with jax.enable_x64(True):
        given: Any = TokenDomain.uniform(6) if domain is None else domain
        if given.grid is not None:
            # In double precision.
            first, places = given.points[:1], lattice(given.grid, given.spacing).points
            given = eqx.tree_at(lambda x: x.points, given, in_dtype(first) + places)
        *states, rate = np.random.default_rng(0).normal(size=(3, given.num_tokens, features))
        held: Any = in_dtype(operator).at(0.5, None)
        if isinstance(held, AbstractSourcedOperator) and held.source is None:
            held = held.with_source(jnp.asarray(rate))
        points = TokenDomain(given.points, jnp.ones(given.num_tokens), period=given.period)
        try:
            eqx.filter_eval_shape(held, jnp.asarray(rate), points)
        except InputError:
            points = given
        directions = drawn_like(held), rate
        case = _Case(held, np.stack(states), given, points, directions, options)
        check(operator, case, _PROPERTIES, without)
