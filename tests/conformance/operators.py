"""What every operator of this package does beyond `check_operator`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.testing.equation import OperatorProperties, rate_of
from ide_transformer.testing.properties import gradient_of, in_dtype, total


class OperatorConformance(OperatorProperties):
    properties = (
        *OperatorProperties.properties[:-1],
        *("dtype", "compiled", "weights", "finite", "causal", "pointwise"),
        *("quadrature", "nodal", "flow", "yaml"),
    )

    def __init__(self, operator, features, domain=None, options=None):
        sourced = isinstance(operator, ide.equation.AbstractSourcedOperator)
        if sourced and operator.source is None:
            tokens = 6 if domain is None else domain.num_tokens
            source = np.random.default_rng(2).normal(size=(tokens, features))
            operator = operator.with_source(jnp.asarray(source))
        super().__init__(operator, features, domain, options)

    def rate_of_tokens(self, tokens, domain):
        """The rate of some of the tokens, with the sources of these."""
        return rate_of(self.of_tokens(tokens), self.u[tokens], domain)

    def of_tokens(self, tokens):
        source = getattr(self.operator, "source", None)
        if source is None or self.operator.on_second_domain:
            return self.operator
        return self.operator.with_source(source[tokens])

    def batches(self):
        """a sample has the same rate in a batch as alone, with weights of its own."""
        operator, domain, each = self.operator, self.points, [self.points, self.points]
        if self.points.weights is not None:
            weights = np.stack([self.ones, self.is_real])
            domain, each = self.weighted(weights), [self.weighted(w) for w in weights]
        states = jnp.stack([self.u, self.other])
        expected = [rate_of(operator, u, d) for u, d in zip(states, each, strict=True)]
        if (source := getattr(operator, "source", None)) is not None:
            operator = operator.with_source(jnp.stack([source, source]), operator.source_domain)
        return rate_of(operator, states, domain), np.stack(expected), 1e-12

    def permutation(self):
        """rates depend on domain.points, not on the order in which they stand."""
        order = np.random.default_rng(1).permutation(len(self.u))
        domain = self.weighted(self.ones, order)
        return self.rate_of_tokens(order, domain), self.rate[order], 1e-12

    def dtype(self):
        """rates have the dtype of state and weights, float32 or bfloat16."""
        dtypes = {}
        for dtype in ("float32", "bfloat16"):
            operator, u = in_dtype((self.operator, self.u), dtype)
            try:
                dtypes[dtype] = eqx.filter_eval_shape(operator, u, self.domain).dtype.name
            except (NotImplementedError, TypeError, ValueError):
                # Fourier transforms have no lower precision.
                dtypes["bfloat16"] = "bfloat16"
        return dtypes, {"float32": "float32", "bfloat16": "bfloat16"}

    def compiled(self):
        """rates are the same on a domain that a program knows, and one that it is given."""
        return self.rate, jax.jit(lambda u: self.operator(u, self.domain))(self.u), 1e-12

    def gradients(self):
        slopes = gradient_of(rate_of, (self.operator, self.u, self.weighted(self.is_real)))
        return *slopes[:2], slopes[2].weights

    def weights(self):
        """derivatives with respect to domain.weights equal finite differences, also
        where one is 0."""
        rate = 1 + np.arange(len(self.u)) / 9

        def at(step):
            domain = self.weighted(self.is_real + step * rate)
            return total(np.asarray(rate_of(self.operator, self.u, domain)))

        # From values ahead alone.
        start, near, far = (at(step) for step in (0.0, 1e-4, 2e-4))
        return self.gradients()[2] @ rate, (4 * near - 3 * start - far) / 2e-4, 1e-6

    def finite(self):
        """gradients stay finite where tokens have the weight zero."""
        finite = [np.isfinite(x).all() for x in jax.tree.leaves(self.gradients())]
        return finite, [True] * len(finite)

    def unseen(self, visible):
        """Rates at each token (row) with other states at those (columns) that it does not see,
        and with the states themselves."""
        states = [jnp.where(row[:, None], self.u, self.other) for row in visible]
        rates = [rate_of(self.operator, u, self.points) for u in states]
        return np.stack([rate[i] for i, rate in enumerate(rates)]), self.rate

    def causal(self):
        """with causal=True the rate at a token depends on no later one."""
        if not getattr(self.operator.innermost, "causal", False):
            return (), ()
        return self.unseen(np.tri(len(self.u), dtype=bool))

    def pointwise(self):
        """with pointwise=True the rate at a token depends on no other one."""
        return self.unseen(np.eye(len(self.u)) > 0) if self.operator.pointwise else ((), ())

    def quadrature(self):
        """a point is two of half its weight: tokens are weighted by domain.weights."""
        # The last point at the place of the second one, of half its weight or of none.
        same = np.append(np.arange(len(self.u) - 1), 1)
        halves = self.weighted(np.where(same == 1, 0.5, 1.0), same)
        merged = self.weighted(np.append(self.ones[1:], 0.0), same)
        return self.rate_of_tokens(same, halves), self.rate_of_tokens(same, merged), 1e-12

    def nodal(self):
        """`at_points` of nodal functions, one for each feature, changes nothing."""
        space = ide.FunctionSpace(
            ide.equation.Nodal(), self.features, ide.FeatureDomain(self.features)
        )
        at_points = eqx.filter_jit(lambda operator: operator.at_points(space))
        return rate_of(at_points(self.operator), self.u, self.points), self.rate, 1e-12

    def flow(self):
        """`flow` is the solution of u_t = A(u) that begins with the state."""
        if not isinstance(self.operator, ide.equation.AbstractExactOperator):
            return (), ()

        @eqx.filter_jit
        def flow(operator, u, h):
            flow_of = lambda h: operator.flow(u, self.points, h)  # noqa: E731
            return jax.jvp(flow_of, (h,), (jnp.ones_like(h),))

        # Arrays, so that one program solves over all of the times.
        half_time, quarter_time, zero_time = np.array([0.5, 0.25, 0.0])
        later, slope = flow(self.operator, self.u, half_time)
        half, _ = flow(self.operator, self.u, quarter_time)
        halves, _ = flow(self.operator, half, quarter_time)
        still, _ = flow(self.operator, self.u, zero_time)
        expected = [rate_of(self.operator, later, self.points), later, self.u]
        return [slope, halves, still], expected, 1e-10
