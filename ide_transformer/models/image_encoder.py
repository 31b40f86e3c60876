import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    Linear,
    TokenDomain,
    as_control,
)
from ..errors import InputError
from .bicubic import resample
from .image_heads import AbstractImageHead, NoHead
from .model import AbstractModel, Discretization
from .patches import patch_domain, split_patches


class ImageEncoder(AbstractModel):
    """An encoder of images: patches, which are the points of a two-dimensional Ω_x, after a
    few learned tokens; the equation; a head.

    `model(images)` maps `images: [..., rows, columns, channels]` to what `head` makes of the
    normalised states at depth T: the states, `[..., prefix + patches, features]`, or logits
    of classes, `[..., classes]`. Images are floating-point numbers, already normalised as in
    the training of the weights. Reference: Dosovitskiy et al., arXiv 2010.11929.

    **Arguments:**

    - `image_shape`: (rows, columns, channels).
    - `patch`: side of a patch in pixels; must divide rows and columns.
    - `embedding`: the linear map of a patch, from its `patch² channels` numbers, row by row
      and channels last, to features.
    - `prefix`: learned tokens in front of the patches, each `[features]`: the class token,
      others.
    - `positions`: `[prefix + patches, features]`, added to the tokens.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `output_normalization`: applied to the states at depth T.
    - `pooler`: makes the pooled vector of the first token, or `None`.
    - `head`: see above.

    **Raises:** `InputError` where the patch does not divide the image, or the positions are
    not as many as the tokens.
    """

    embedding: Linear
    prefix: tuple[Float[Array, " features"], ...]
    positions: Float[Array, "tokens features"]
    control: AbstractControl
    constraint: AbstractControl
    output_normalization: AbstractConstraint
    pooler: Linear | None
    head: AbstractImageHead
    discretization: Discretization
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    patch: int = eqx.field(static=True)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch: int,
        *,
        embedding: Linear,
        prefix: tuple[Float[Array, " features"], ...],
        positions: Float[Array, "tokens features"],
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        output_normalization: AbstractConstraint = Free(),
        pooler: Linear | None = None,
        head: AbstractImageHead = NoHead(),
    ):
        self.embedding = embedding
        self.prefix = prefix
        self.positions = positions
        self.control = control
        self.constraint = as_control(constraint, control)
        self.output_normalization = output_normalization
        self.pooler = pooler
        self.head = head
        self.discretization = discretization
        self.image_shape = image_shape
        self.patch = patch

    def __check_init__(self):
        rows, columns, _ = self.image_shape
        _check_divides(self.patch, rows, columns)
        patches = self.grid[0] * self.grid[1]
        if self.positions.shape[0] != len(self.prefix) + patches:
            raise InputError(
                f"ImageEncoder: {self.positions.shape[0]} positions, but {len(self.prefix)} "
                f"prefix tokens and {patches} patches; give one row for each."
            )

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        rows, columns, _ = self.image_shape
        return rows // self.patch, columns // self.patch

    @property
    def domain(self) -> TokenDomain:
        """The grid of patches; the prefix tokens lie at its centre."""
        return patch_domain(self.grid, len(self.prefix))

    def embed(
        self, inputs: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        images = jnp.asarray(inputs)
        self._check(images)
        images = images.astype(self.embedding.weight.dtype)
        u = self.embedding(split_patches(images, self.patch))
        prefix = [jnp.broadcast_to(x, (*u.shape[:-2], 1, x.shape[0])) for x in self.prefix]
        u = jnp.concatenate([*prefix, u], axis=-2)
        return u + jnp.broadcast_to(self.positions, u.shape), self.domain

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> Float[Array, "..."]:
        v, number = self.output_normalization.project(u), len(self.prefix)
        return self.head(v[..., :number, :], v[..., number:, :])

    def pooled(
        self, states: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch pooled"]:
        """`tanh(W u_0 + b)`, u_0 the state of the first token.

        **Arguments:**

        - `states`: what a model without a head returns.

        **Raises:** `InputError` for a model without a pooler.
        """
        if self.pooler is None:
            raise InputError(
                "This ImageEncoder has no pooler; take states[..., 0, :], the class token."
            )
        return jnp.tanh(self.pooler(states[..., 0, :]))

    def with_head(self, head: AbstractImageHead) -> "ImageEncoder":
        """The same encoder with another head: `NoHead()` for its states, a new classifier
        for other classes."""
        return dataclasses.replace(self, head=head)

    def resized(self, size: tuple[int, int]) -> "ImageEncoder":
        """The same model for images of another size: the positions are interpolated on the
        rectangle of the image, those of the prefix tokens stay.

        **Arguments:**

        - `size`: (rows, columns) in pixels, multiples of the patch.

        **Raises:** `InputError` where the patch does not divide the size.
        """
        rows, columns = size
        _check_divides(self.patch, rows, columns)
        number = len(self.prefix)
        values = self.positions[number:].reshape(*self.grid, -1)
        values = resample(values, (rows // self.patch, columns // self.patch))
        positions = [self.positions[:number], values.reshape(-1, values.shape[-1])]
        return dataclasses.replace(
            self,
            image_shape=(rows, columns, self.image_shape[2]),
            positions=jnp.concatenate(positions),
        )

    def _check(self, images: Array) -> None:
        """Refuses images of another shape or of integers, with what to write instead."""
        rows, columns, channels = self.image_shape
        shape, built = images.shape, f"[..., {rows}, {columns}, {channels}]"
        if shape[-3:] != self.image_shape:
            raise InputError(
                f"ImageEncoder: images of shape {shape}, but the model was built for {built}; "
                f"{self._advice(shape)}"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"ImageEncoder: images of {images.dtype}, but the model takes floating-point "
                "numbers, normalised as in its training; for bytes write "
                "(images / 255 - mean) / std, mean and std those of its preprocessor."
            )

    def _advice(self, shape: tuple[int, ...]) -> str:
        rows, columns, channels = self.image_shape
        if shape[-3:] == (channels, rows, columns):
            return "channels come last: write jnp.moveaxis(images, -3, -1)."
        if len(shape) < 3 or shape[-1] != channels:
            return f"give images with a last axis of {channels} channels."
        other = shape[-3:-1]
        if any(side % self.patch or not side for side in other):
            return f"resize the images to {rows} by {columns} pixels."
        return f"resize the images, or the model: model.resized({other})."


def _check_divides(patch: int, rows: int, columns: int) -> None:
    if min(rows, columns) < patch or rows % patch or columns % patch:
        raise InputError(
            f"ImageEncoder: patches of {patch} by {patch} pixels do not divide images of "
            f"{rows} by {columns}; choose multiples of {patch}."
        )
