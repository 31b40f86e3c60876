from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..equation import (
    AbstractControl,
    Equation,
    FeatureDomain,
    FunctionSpace,
    Nodal,
    TokenDomain,
)
from ..errors import InputError
from ..integration import Solution
from ..solvers import InitialVelocity
from .model import Discretization, Model


class FunctionalModel(Model):
    """A model whose weights are functions of the features, so that its width is a resolution:
    those of an ordinary model of `space.modes` features, read as coefficients, see
    `FunctionSpace`. `model.on(Mesh(width=d))` has the same weights at d points of Ω_y.

    With `Nodal()` and as many points as modes it is the ordinary model itself.

    **Arguments:**

    - `coefficients`: the ordinary model.
    - `space`: the functions and the points.

    **Raises:** `InputError` for another number of modes than it has features; when called, for
    parts that are no functions of the features.
    """

    configurable: ClassVar[bool] = False

    coefficients: Model
    space: FunctionSpace

    def __check_init__(self):
        if self.coefficients.features != self.space.modes:
            raise InputError(
                f"FunctionalModel: coefficients of a model of {self.coefficients.features} "
                f"features for {self.space.modes} modes; there has to be one for each."
            )

    @property
    def ordinary(self) -> Model:
        """The ordinary model at the points, with matrices in the place of kernels."""
        model = self.coefficients.at_points(self.space)
        scheme = model.discretization.solver
        modes, weights = self.space.modes, jax.tree.leaves(eqx.filter(scheme, eqx.is_array))
        if modes != self.features and any(modes in x.shape for x in weights):
            raise InputError(
                f"{type(scheme).__name__} has a weight for each of {modes} features, which are "
                "no functions; take a scheme without."
            )
        return model

    def with_width(self, features: int) -> "FunctionalModel":
        """Give the functions another number of points."""
        return FunctionalModel(self.coefficients, self.space.with_points(features))

    @property
    def control(self) -> AbstractControl:
        return self.coefficients.control

    @property
    def constraint(self) -> AbstractControl:
        return self.coefficients.constraint

    @property
    def discretization(self) -> Discretization:
        return self.coefficients.discretization

    @property
    def features(self) -> int:
        return self.space.domain.features

    @property
    def domain(self) -> TokenDomain:
        return self.coefficients.domain

    @property
    def equation(self) -> Equation:
        return self.ordinary.equation

    def embed(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        return self.ordinary.embed(inputs, key=key)

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> PyTree[Array]:
        return self.ordinary.read_out(u)

    def initial_velocity(self, inputs: PyTree[ArrayLike]) -> InitialVelocity | None:
        return self.ordinary.initial_velocity(inputs)

    def solve(self, inputs: PyTree[ArrayLike], **options) -> Solution:
        return self.ordinary.solve(inputs, **options)

    def __call__(
        self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None
    ) -> PyTree[Array]:
        return self.ordinary(inputs, key=key)


def functional(model: Model) -> FunctionalModel:
    """A model as functions of its features: an ordinary one with `Nodal()`, where every feature
    of a wider one is there several times."""
    if isinstance(model, FunctionalModel):
        return model
    space = FunctionSpace(Nodal(), model.features, FeatureDomain(model.features))
    return FunctionalModel(model, space)
