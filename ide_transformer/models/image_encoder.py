import dataclasses
from dataclasses import KW_ONLY
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    Linear,
    TokenDomain,
    as_control,
)
from .classifier import AbstractImageClassifier
from .encoder_parts import any_constraint, pool_first
from .image_heads import AbstractImageHead, NoHead
from .image_model import AbstractImageModel, grid_of_shape
from .model import Discretization


class ImageEncoder(AbstractImageModel, AbstractImageClassifier):
    """An encoder of images: a few learned tokens and the patches, which are the points of a
    two-dimensional Ω_x; the equation; a head.

    `model(images)` maps `images: [..., rows, columns, channels]` to the output of `head` for
    the normalised states at depth T: the states, `[..., prefix + patches, features]`, or
    logits of classes, `[..., classes]`. Images are floating-point numbers, already normalised
    as in the training of the weights. Reference: Dosovitskiy et al., arXiv 2010.11929.

    **Arguments:**

    - `image_shape`: (rows, columns, channels).
    - `patch`: the side of a patch in pixels; it must divide rows and columns.
    - `embedding`: the linear map of a patch, from its `patch² channels` numbers, row by row
      and channels last, to features.
    - `prefix`: learned tokens before the patches, each `[features]`: the class token and
      others.
    - `positions`: `[prefix + patches, features]`, added to the tokens.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `output_normalization`: applied to the states at depth T.
    - `pooler`: makes the pooled vector of the first token, or `None`.
    - `head`: makes the outputs, see above.

    **Raises:** `InputError` where the patch does not divide the image, or the positions are
    not as many as the tokens.
    """

    # A checkpoint gives its parts.
    configurable: ClassVar[bool] = False

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = eqx.field(static=True)
    patch: PositiveInt = eqx.field(static=True)
    _: KW_ONLY
    embedding: Linear
    prefix: tuple[Float[Array, " features"], ...]
    positions: Float[Array, "tokens features"]
    control: AbstractControl
    constraint: AbstractControl = eqx.field(converter=any_constraint)
    output_normalization: AbstractConstraint = Free()
    pooler: Linear | None = None
    head: AbstractImageHead = NoHead()
    discretization: Discretization

    def __post_init__(self):
        self.constraint = as_control(self.constraint, self.control)

    def embed(
        self, inputs: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        return self.tokens(inputs), self.domain

    def pooled(
        self, states: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch pooled"]:
        """`tanh(W u_0 + b)`, u_0 the state of the first token.

        **Arguments:**

        - `states`: the output of a model without a head.

        **Raises:** `InputError` for a model without a pooler.
        """
        missing = "This ImageEncoder has no pooler; take states[..., 0, :], the class token."
        return pool_first(self.pooler, states, missing=missing)

    def with_head(self, head: AbstractImageHead) -> "ImageEncoder":
        """Exchange the head: `NoHead()` for its states, a new classifier
        for other classes."""
        return dataclasses.replace(self, head=head)

    def with_tokens(self, tokens: int | tuple[int, int]) -> "ImageEncoder":
        """Fit the model to images of (rows, columns) patches, or of so many in the shape of its
        own: the positions of patches are interpolated on the rectangle of the image, those
        of the prefix tokens stay."""
        grid = grid_of_shape(tokens, self.grid)
        rows, columns = (number * self.patch for number in grid)
        return dataclasses.replace(
            self,
            image_shape=(rows, columns, self.image_shape[2]),
            positions=self.positions_on(grid),
        )

    def _size_advice(self, size: tuple[int, ...]) -> str:
        if any(side % self.patch or not side for side in size):
            return super()._size_advice(size)
        patches = tuple(side // self.patch for side in size)
        return f"resize the images, or the model: model.on(Mesh(tokens={patches}))."
