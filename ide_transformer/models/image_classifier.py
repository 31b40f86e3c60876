import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    LayerNorm,
    TokenDomain,
    as_control,
    drop,
    product,
)
from ..errors import InputError
from .model import AbstractModel, Discretization
from .patches import patch_domain, split_patches


class ImageClassifier(AbstractModel):
    """A vision Transformer: patches of an image are the points of a two-dimensional Ω_x.

    `model(images)` maps `images: [..., rows, columns, channels]` (or `[..., rows, columns]`
    for one channel) to the logits of the classes, `[..., classes]`. Reference: Dosovitskiy et
    al., arXiv 2010.11929.

    **Arguments:**

    - `image_shape`: (rows, columns, channels).
    - `patch`: side of a patch in pixels; must divide rows and columns.
    - `classes`, `features`: sizes.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `class_token`: read the class from an extra learned token, which is put before the
      patches; otherwise from the mean over patches.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the read-out.
    - `dropout`: rate on the embedded input.
    - `std`: standard deviation of the initial embeddings.

    **Raises:** `InputError` where the patch does not divide the image.
    """

    patch_weight: Float[Array, "pixels features"]
    patch_bias: Float[Array, " features"]
    positions: Float[Array, "tokens features"]
    class_token: Float[Array, " features"] | None
    readout: Float[Array, "features classes"]
    readout_bias: Float[Array, " classes"]
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        patch: int,
        classes: int,
        features: int,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        class_token: bool = False,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: float = 0.0,
        std: float = 0.02,
    ):
        rows, columns, channels = image_shape
        if rows % patch or columns % patch:
            raise InputError(
                f"ImageClassifier: patches of {patch} by {patch} pixels do not divide images "
                f"of {rows} by {columns}; choose a side that divides both."
            )
        pixels = patch * patch * channels
        tokens = (rows // patch) * (columns // patch) + class_token
        patch_key, position_key, readout_key = jax.random.split(key, 3)
        self.patch_weight = std * jax.random.normal(patch_key, (pixels, features))
        self.patch_bias = jnp.zeros(features)
        self.positions = std * jax.random.normal(position_key, (tokens, features))
        self.class_token = jnp.zeros(features) if class_token else None
        self.readout = std * jax.random.normal(readout_key, (features, classes))
        self.readout_bias = jnp.zeros(classes)
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.discretization = discretization
        self.image_shape = image_shape
        self.patch = patch
        self.dropout = dropout

    @property
    def features(self) -> int:
        return self.patch_weight.shape[1]

    @property
    def domain(self) -> TokenDomain:
        """The grid of patches; a class token lies at its centre."""
        rows, columns, _ = self.image_shape
        grid = rows // self.patch, columns // self.patch
        return patch_domain(grid, prefix=self.class_token is not None)

    def embed(
        self,
        inputs: Float[ArrayLike, "..."],
        *,
        key: PRNGKeyArray | None = None,
    ) -> tuple[Float[Array, "..."], TokenDomain]:
        inputs = jnp.asarray(inputs)
        rows, columns, channels = self.image_shape
        if channels == 1 and inputs.shape[-2:] == (rows, columns):
            inputs = inputs[..., None]
        if inputs.shape[-3:] != self.image_shape:
            raise InputError(
                f"ImageClassifier: images of shape {inputs.shape}, but the model was built "
                f"for [..., {rows}, {columns}, {channels}]."
            )
        u = product(split_patches(inputs, self.patch), self.patch_weight)
        u = u + jnp.broadcast_to(self.patch_bias, u.shape)
        if self.class_token is not None:
            first = jnp.broadcast_to(self.class_token, (*u.shape[:-2], 1, u.shape[-1]))
            u = jnp.concatenate([first, u], axis=-2)
        u = u + jnp.broadcast_to(self.positions, u.shape)
        u = self.input_normalization.project(drop(u, self.dropout, key))
        return u, self.domain

    def read_out(
        self, u: Float[Array, "*batch tokens features"]
    ) -> Float[Array, "*batch classes"]:
        v = self.output_normalization.project(u)
        pooled = jnp.mean(v, axis=-2) if self.class_token is None else v[..., 0, :]
        logits = pooled @ self.readout
        return logits + jnp.broadcast_to(self.readout_bias, logits.shape)
