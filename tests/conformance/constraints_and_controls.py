"""What every constraint and every control of this package does beyond `check_constraint` and
`check_control`."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.equation import AbstractRescaling, low_precision
from ide_transformer.testing.equation import (
    ConstraintProperties,
    ControlProperties,
    blocks,
    call,
    scan_blocks,
)
from ide_transformer.testing.properties import in_dtype


class ConstraintConformance(ConstraintProperties):
    properties = (
        *ConstraintProperties.properties[:-1],
        *("tokens", "dtype", "distance", "off_set", "stays", "unproject", "nodal", "yaml"),
    )

    def tokens(self):
        """each token is projected by itself, and measured."""
        alone = [[self.project(u), self.residual(u)] for u in self.u]
        together = zip(self.on, self.residual(self.u), strict=True)
        return alone, list(map(list, together)), 1e-12

    def dtype(self):
        """projections have the dtype of state and weights, float32 or bfloat16."""
        low = {x: in_dtype((self.constraint, self.u), x) for x in ("float32", "bfloat16")}
        dtypes = {x: eqx.filter_eval_shape(c.project, u) for x, (c, u) in low.items()}
        return {x: y.dtype.name for x, y in dtypes.items()}, {x: x for x in low}

    def distance(self):
        """the residual is ‖u - project(u)‖, the root mean square over features."""
        square = call(self.constraint, "mean", (self.u - self.on) ** 2)
        return self.residual(self.u), np.sqrt(square[..., 0]), 1e-10

    def off_set(self):
        """the residual is positive at a token that the projection moves."""
        moves = np.asarray(abs(self.on - self.u).max(axis=-1) > 1e-3)
        return np.asarray(self.residual(self.u) > 1e-6)[moves], moves[moves]

    def stays(self):
        """a small step along `tangent` leaves the set in second order only."""
        moved = self.on + 1e-4 * call(self.constraint, "tangent", self.on, self.rate)
        return self.residual(moved) / 1e-4, np.zeros(len(self.on)), 1e-2

    def unproject(self):
        """the shift and the scale of a rescaling give back the state."""
        if not isinstance(self.constraint, AbstractRescaling):
            return (), ()
        scales = call(self.constraint, "scales", self.u)
        return call(self.constraint, "unproject", self.on, scales), self.u, 1e-12

    def nodal(self):
        """`at_points` of nodal functions, one for each feature, changes nothing."""
        space = ide.FunctionSpace(
            ide.equation.Nodal(), self.features, ide.FeatureDomain(self.features)
        )
        nodal_constraint = call(self.constraint, "at_points", space)
        return call(nodal_constraint, "project", self.u), self.on, 1e-12


class ControlConformance(ControlProperties):
    properties = (
        *ControlProperties.properties[:-1],
        *("continuous", "resample", "coarse", "extend", "tabulate"),
        *("precision", "configured", "yaml"),
    )

    def continuous(self):
        """with continuous=True blocks do not jump between intervals."""
        if not self.control.continuous:
            return (), ()
        ends = jax.tree.map(np.asarray, scan_blocks(self.control, np.array([0.0, 1.0])))
        before = jax.tree.map(lambda x: x[:-1, 1], ends)
        return before, jax.tree.map(lambda x: x[1:, 0], ends), 1e-12

    def resample(self):
        """on three times as many intervals of the same depth, and back, it has the same
        blocks."""
        layers = self.control.layers

        @eqx.filter_jit
        def resampled(control):
            fine = control.resample(3 * layers)
            controls = fine, fine.resample(layers)
            return [(x.layers, x.horizon, blocks(x, self.depths)) for x in controls]

        same = [(n, self.control.horizon, self.at_depths) for n in (3 * layers, layers)]
        return resampled(self.control), same, 1e-12

    def coarse(self):
        """on any number of intervals its depth is the same, and blocks are finite."""

        @eqx.filter_jit
        def coarsened(control, layers):
            coarse = control.resample(layers)
            return coarse.horizon, blocks(coarse, jnp.zeros(1))

        numbers = 1, self.control.layers + 1
        results = [coarsened(self.control, layers) for layers in numbers]
        finite = [np.isfinite(y).all() for _, x in results for y in jax.tree.leaves(x)]
        depths = [depth for depth, _ in results]
        return [depths, finite], [[self.control.horizon] * 2, [True] * len(finite)], 1e-12

    def extend(self):
        """at twice the depth, if it is not refused, blocks repeat."""
        depth = self.control.horizon
        twice = np.append(self.depths, self.depths + depth)
        expected = jax.tree.map(lambda x: np.concatenate([x, x]), self.at_depths)

        @eqx.filter_jit
        def extended(control):
            longer = control.extend(2 * depth)
            return [longer.horizon, blocks(longer, twice)]

        return extended(self.control), [2 * depth, expected], 1e-12

    def tabulate(self):
        """a table has the same blocks at its places."""
        places = self.places

        @eqx.filter_jit
        def tabulated(control):
            return tuple(scan_blocks(x, places) for x in (control.tabulate(places), control))

        return *tabulated(self.control), 1e-12

    def precision(self):
        """in low precision the matrices of a block have 16 bits, and vectors 64, by
        `depth_axes`."""
        low = eqx.filter_eval_shape(low_precision(self.control, "bfloat16"), 0.0)
        arrays = jax.tree.leaves(eqx.filter(low, lambda x: hasattr(x, "dtype")))
        dtypes = [x.dtype.name for x in arrays if jnp.issubdtype(x.dtype, jnp.inexact)]
        ndims = [x.ndim for x in jax.tree.leaves(self.at_depths)]
        return dtypes, ["bfloat16" if ndim > 2 else "float64" for ndim in ndims]

    def configured(self):
        """a configuration makes as many intervals, and such blocks, as are asked for."""

        def sizes():
            control = self.built()
            return control.layers, control(0.0)[0].map.weight

        layers, weight = eqx.filter_eval_shape(sizes)
        return [layers, *weight.shape], [3, 2, 2]
