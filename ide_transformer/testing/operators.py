"""Conformance of an operator."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import equation as eq
from ..errors import InputError
from .properties import (
    AbstractConformance,
    bits,
    central_difference,
    drawn_like,
    in_dtype,
    one_sided_difference,
    within,
)


# One program for all cases of an operator, and one for all of their derivatives.
@eqx.filter_jit
def _rate(operator, u, domain):
    return operator(u, domain)


@eqx.filter_jit
def _derivatives(operator, u, domain):
    """Derivatives of each number of the rate by weights, state and quadrature weights."""
    weights, rest = eqx.partition(operator, eqx.is_inexact_array)

    def rate(weights, u, quadrature):
        return eqx.combine(weights, rest)(u, replace(domain, weights=quadrature))

    _, pullback = jax.vjp(rate, weights, u, domain.weights)
    units = jnp.eye(u.size, dtype=u.dtype).reshape(-1, *u.shape)
    return jax.vmap(pullback)(units)


def _claimed(claims: bool) -> None:
    if not claims:
        raise InputError("It does not say so.")


class _Operator(AbstractConformance):
    """An operator on six tokens or those of a domain. `points` is the domain without its grid
    and with weights, where the operator takes such; `there` are tokens that are no padding."""

    kind = eq.AbstractOperator

    def __init__(self, part, options, features, domain):
        super().__init__(part, options, features)
        domain = eq.TokenDomain.uniform(6) if domain is None else domain
        if domain.grid is not None:
            # In double precision.
            places = eq.lattice(domain.grid, domain.spacing).points
            domain = replace(domain, points=in_dtype(domain.points[:1]) + places)
        number = domain.num_tokens
        *states, rate = np.random.default_rng(0).normal(size=(3, number, features))
        held: Any = in_dtype(part).at(0.5, None)
        if isinstance(held, eq.AbstractSourcedOperator) and held.source is None:
            held = held.with_source(jnp.asarray(rate))
        self.operator, self.states, self.u = held, np.stack(states), states[0]
        self.directions, self.domain = (drawn_like(held), rate), domain
        self.ones, self.there = np.ones(number), np.arange(number) < number - 2
        self.points = eq.TokenDomain(domain.points, jnp.ones(number), period=domain.period)
        try:
            eqx.filter_eval_shape(held, jnp.asarray(rate), self.points)
        except InputError:
            self.points = domain

    def rate(self, u: Any = None) -> Any:
        return np.asarray(_rate(self.operator, self.u if u is None else u, self.points))

    def weighted(self, weights: Any, places: Any = slice(None)) -> eq.TokenDomain:
        """Some of the points, with other weights."""
        if self.points.weights is None:
            raise InputError("The operator takes no weights.")
        points = jnp.asarray(np.asarray(self.points.points)[places])
        return eq.TokenDomain(points, jnp.asarray(weights), period=self.points.period)

    def of_tokens(self, tokens: Any) -> Any:
        """The operator with the source of some of the tokens."""
        source = getattr(self.operator, "source", None)
        if source is None or self.operator.own_domain:
            return self.operator
        return self.operator.with_source(jnp.asarray(np.asarray(source)[tokens]))

    @within(0.0)
    def dtype(self):
        """rates have as many bits as state and weights, 32 or 16."""
        low = [in_dtype((self.operator, self.u), dtype) for dtype in ("float32", "bfloat16")]
        found = bits([eqx.filter_eval_shape(*low[0], self.domain)])
        try:
            found += bits([eqx.filter_eval_shape(*low[1], self.domain)])
        except (NotImplementedError, TypeError, ValueError):
            # Fourier transforms have no lower precision.
            found += [16]
        return found, [32, 16]

    @within(1e-12)
    def compiled(self):
        """rates are the same on a domain that a program knows, and one that it is given."""
        return self.rate(), jax.jit(lambda u: self.operator(u, self.domain))(self.u)

    @within(1e-12)
    def batches(self):
        """the rate of a batch is that of each of its samples, with weights of its own."""
        domain, each = self.points, [self.points, self.points]
        if self.points.weights is not None:
            weights = np.stack([self.ones, self.there])
            domain, each = self.weighted(weights), list(map(self.weighted, weights))
        pairs = zip(self.states, each, strict=True)
        expected = [np.asarray(_rate(self.operator, u, domain)) for u, domain in pairs]
        operator = self.operator
        if (source := getattr(operator, "source", None)) is not None:
            both = jnp.asarray(np.stack([source, source]))
            operator = operator.with_source(both, operator.source_domain)
        return _rate(operator, self.states, domain), np.stack(expected)

    @within(1e-7)
    def gradient(self):
        """derivatives with respect to weights and state are those of finite differences."""
        slopes = []
        jacobians = _derivatives(self.operator, self.u, self.points)[:2]
        for jacobian, direction in zip(jacobians, self.directions, strict=True):
            pairs = zip(jax.tree.leaves(jacobian), jax.tree.leaves(direction), strict=True)
            parts = (np.asarray(j).reshape(self.u.size, -1) @ np.ravel(d) for j, d in pairs)
            slopes.append(sum(parts, np.zeros(self.u.size)).reshape(self.u.shape))
        weights, state = self.directions
        return slopes, [
            central_difference(lambda x: _rate(x, self.u, self.points), self.operator, weights),
            central_difference(self.rate, self.u, state),
        ]

    @within(1e-6)
    def weights(self):
        """derivatives with respect to domain.weights are those of finite differences, also
        where one is 0."""
        weights, rate = self.there.astype(float), 1 + np.arange(len(self.u)) / 9
        jacobian = _derivatives(self.operator, self.u, self.weighted(weights))[2]
        return np.asarray(jacobian) @ rate, one_sided_difference(
            lambda w: np.ravel(_rate(self.operator, self.u, self.weighted(w))), weights, rate
        )

    @within(0.0)
    def padding(self):
        """tokens of weight zero are not seen, and gradients stay finite."""
        domain, there = self.weighted(self.there.astype(float)), self.there
        other = np.where(there[:, None], self.u, 1e3 * self.states[1])
        found, expected = (
            np.asarray(_rate(self.operator, u, domain))[there] for u in (other, self.u)
        )
        gradients = jax.tree.leaves(_derivatives(self.operator, self.u, domain))
        finite = [bool(np.isfinite(x).all()) for x in gradients]
        return [found, finite], [expected, [True] * len(finite)]

    def jacobian(self) -> np.ndarray:
        """`[tokens, others]`, the largest derivative of a rate by another state."""
        of_state = _derivatives(self.operator, self.u, self.points)[1]
        return abs(np.asarray(of_state)).reshape(*self.u.shape, *self.u.shape).max((1, 3))

    @within(0.0)
    def causal(self):
        """with causal=True the rate at a token (row) depends on no later one (column)."""
        _claimed(getattr(self.operator.innermost, "causal", False))
        seen = self.jacobian()
        return np.triu(seen, 1), 0 * seen

    @within(0.0)
    def pointwise(self):
        """with pointwise=True the rate at a token (row) depends on no other one (column)."""
        _claimed(self.operator.pointwise)
        seen = self.jacobian()
        return seen - np.diag(np.diag(seen)), 0 * seen

    @within(1e-12)
    def permutation(self):
        """rates depend on domain.points, not on the order in which they stand."""
        order = np.random.default_rng(1).permutation(len(self.u))
        domain = self.weighted(self.ones, order)
        return _rate(self.of_tokens(order), self.u[order], domain), self.rate()[order]

    @within(1e-12)
    def quadrature(self):
        """a point is two of half its weight: tokens are weighted by domain.weights."""
        same, whole = np.arange(len(self.u)), self.ones.copy()
        # The last point at the place of the second one.
        same[-1], whole[-1] = 1, 0
        halves = np.where(same == 1, 0.5, whole)
        operator, u = self.of_tokens(same), self.u[same]
        found, expected = (_rate(operator, u, self.weighted(w, same)) for w in (halves, whole))
        return found, expected

    @within(1e-12)
    def march(self):
        """`over` gives the last tokens alone the rate that they have among all."""
        _claimed(isinstance(self.operator, eq.AbstractTokenIntegral))
        whole, last = [], np.arange(len(self.u))[-2:]

        @eqx.filter_jit
        def both(operator, new, u, domain):
            operator.over(u, domain, lambda own, d: whole.append(own) or (own, d))
            seen = whole.pop()
            queries = eq.TokenDomain(domain.points[last], period=domain.period)
            rate = new.over(u[last], queries, lambda x, _: whole.append(x) or (seen, domain))
            return (rate, whole.pop()), jax.tree.map(lambda y: y[-2:], seen)

        u = jnp.asarray(self.u)
        (rate, own), seen = both(self.operator, self.of_tokens(last), u, self.points)
        return [rate, own], [self.rate()[last], seen]

    @within(1e-12)
    def nodal(self):
        """`at_points` of nodal functions, one for each feature, changes nothing."""
        space = eq.FunctionSpace(eq.Nodal(), self.features, eq.FeatureDomain(self.features))
        at_points = eqx.filter_jit(lambda operator: operator.at_points(space))
        return _rate(at_points(self.operator), self.u, self.points), self.rate()

    @within(1e-10)
    def flow(self):
        """`flow` is the solution of u_t = A(u) that begins with the state."""
        _claimed(isinstance(self.operator, eq.AbstractExactOperator))

        @eqx.filter_jit
        def flow(operator, u, h):
            return jax.jvp(
                lambda h: operator.flow(u, self.points, h), (h,), (jnp.ones_like(h),)
            )

        # Arrays, so that one program solves over all of the times.
        whole, quarter, none = np.array([0.5, 0.25, 0.0])
        later, slope = flow(self.operator, self.u, whole)
        half, _ = flow(self.operator, self.u, quarter)
        halves, still = (flow(self.operator, *x)[0] for x in ((half, quarter), (self.u, none)))
        return [slope, halves, still], [self.rate(later), later, self.u]


def check_operator(
    operator: eq.AbstractOperator,
    features: int,
    domain: eq.TokenDomain | None = None,
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    without: tuple[str, ...] = (),
) -> None:
    """Checks what every operator does, in double precision, and says all that does not hold:

    - `copies`: it is the same pickled and copied;
    - `dtype`: rates have the dtype of state and weights, float32 or bfloat16;
    - `compiled`: they are the same on a domain that a program knows, or is given;
    - `batches`: a batch is each of its samples, with padding of its own;
    - `gradient`, `weights`: derivatives with respect to weights, state and `domain.weights`
      are those of finite differences;
    - `padding`: tokens of weight zero are not seen, and gradients stay finite;
    - `causal`, `pointwise`: where the class says so, other derivatives are exactly zero;
    - `permutation`, `quadrature`: the order in which points stand does not matter, and a point
      is two of half its weight;
    - `march`: an `AbstractTokenIntegral` goes on with new tokens alone;
    - `nodal`: `at_points` of one nodal function for each feature changes nothing;
    - `flow`: that of an `AbstractExactOperator` solves its equation;
    - `yaml`: a configuration makes it.

    What the operator refuses by an `InputError`, such as weights where it needs a grid, is not
    compared.

    **Arguments:**

    - `operator`: one with random weights, and with its source, if that has a domain of its own.
    - `features`: width of the state.
    - `domain`: four points or more on a line, in increasing order, of equal weights; `None` for
      six tokens of a text.
    - `options`: what a configuration has to give.
    - `without`: properties that it is not to have.

    **Example:** `check_operator(ide.Damping(0.5), 4, options={"rate": 0.5})`
    """
    with jax.enable_x64(True):
        _Operator(operator, options, features, domain).check(without)
