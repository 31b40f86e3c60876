"""What every scheme of this package does beyond `check_scheme`."""

import pickle
from functools import cached_property

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import ide_transformer as ide
from ide_transformer.equation import spell
from ide_transformer.integration import Direct, Recompute, Recursive, Reversible
from ide_transformer.solvers import StepField, couplings_of
from ide_transformer.testing.properties import equal, gradient_of, total
from ide_transformer.testing.schemes import SchemeProperties, end_of


def end_beside(equation, u0, solver, other, gradient):
    """The end of a sample that is solved beside another one."""
    return end_of(equation, jnp.stack([u0, other]), solver, gradient)[0]


class SchemeConformance(SchemeProperties):
    properties = (
        *SchemeProperties.properties[:-1],
        *("dtype", "failure", "vmap", "modes", "interpolation", "yaml"),
    )

    def __init__(self, solver, operators=None, options=None):
        super().__init__(solver, operators, options, features=4)

    @cached_property
    def knots(self):
        return jnp.asarray(self.inputs[0].knots)

    @cached_property
    def direct(self):
        """The gradient by weights, state and scheme."""
        return gradient_of(end_of, (*self.inputs, Direct()))[:3]

    @cached_property
    def together(self):
        """States at the knots, successes and gradients inside jax.vmap: of what is given, and
        with weights that are not finite."""
        inputs, static = eqx.partition(self.inputs, eqx.is_inexact_array)
        lanes = jax.tree.map(lambda x: np.stack([x, x]), inputs)
        for x in jax.tree.leaves(lanes[0].control):
            x[1, -1] = np.inf
        options = dict(saveat=diffrax.SaveAt(ts=self.knots), throw=False)

        def at_end(inputs):
            equation, u0, solver = eqx.combine(inputs, static)
            solution = ide.solve(equation, u0, solver=solver, gradient=Recompute(), **options)
            return total(solution.u1), (solution.us, solution.succeeded)

        solved = jax.jit(jax.vmap(jax.value_and_grad(at_end, has_aux=True)))
        (_, (states, succeeded)), gradient = solved(lanes)
        return np.asarray(states), succeeded, gradient

    def copies(self):
        """pickled, it is the same."""
        # Schemes of diffrax hold objects that equal themselves alone.
        copy = pickle.loads(pickle.dumps(self.part))
        return equal(copy, self.part) or spell(copy) == spell(self.part), True

    def dtype(self):
        """a state in float32 stays so."""
        equation, u0, solver = self.inputs
        end = eqx.filter_eval_shape(end_of, equation, u0.astype("float32"), solver, Direct())
        return end.dtype.name, "float32"

    def failure(self):
        """weights that are not finite end in a failure, and others in a success."""
        return self.together[1], np.array([True, False])

    def vmap(self):
        """states and gradients are the same when compiled inside of jax.vmap."""
        states, _, gradient = self.together
        first = jax.tree.map(lambda x: x[0], gradient)
        return (states[0, -1], first), (self.end, self.direct), 1e-9

    def modes(self):
        """all gradient modes give the same gradient, beside another sample too."""
        beside = gradient_of(end_beside, (*self.inputs, self.other, Recursive(2)))
        gradients, field = [beside[:3]], StepField(self.inputs[0].terms_of(0), 0.0, 1.0)
        if couplings_of(self.solver, field, True) is not None:
            gradients.append(gradient_of(end_of, (*self.inputs, Reversible()))[:3])
        return gradients, [self.direct] * len(gradients), 1e-9

    def interpolation(self):
        """the interpolation meets the states at the ends of steps."""

        @eqx.filter_jit
        def at(solution, knots):
            before = jax.vmap(lambda t: solution.evaluate(t, left=True))(knots[1:])
            return before, jax.vmap(lambda t: solution.evaluate(t, left=False))(knots[:-1])

        states = self.together[0][0]
        return at(self.by_diffrax, self.knots), (states[1:], states[:-1]), 1e-9
