import math

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..equation import AbstractConstraint, Linear, TokenDomain
from ..errors import InputError
from .bicubic import resample
from .encoder_parts import after_prefix
from .image_heads import AbstractImageHead
from .model import AbstractVar, Model


class AbstractImageModel(Model):
    """A model of images: learned tokens, then patches, which are the points of a
    two-dimensional Ω_x; the equation; a head.

        u(0) = [prefix, W patches + b] + positions,    outputs = head(N(u(T))).
    """

    # The linear map of a patch.
    embedding: AbstractVar[Linear]
    # Learned tokens before the patches.
    prefix: AbstractVar[tuple[Float[Array, " features"], ...]]
    positions: AbstractVar[Float[Array, "tokens features"]]
    output_normalization: AbstractVar[AbstractConstraint]
    head: AbstractVar[AbstractImageHead]
    # (rows, columns, channels)
    image_shape: AbstractVar[tuple[int, int, int]]
    # The side of a patch in pixels.
    patch: AbstractVar[int]

    def __check_init__(self):
        self._check_size(*self.image_shape[:2])
        patches = self.grid[0] * self.grid[1]
        if self.positions.shape[0] != len(self.prefix) + patches:
            raise InputError(
                f"{type(self).__name__}: {self.positions.shape[0]} positions, but "
                f"{len(self.prefix)} prefix tokens and {patches} patches; give one row for "
                "each."
            )
        if self.head.prefix_tokens > len(self.prefix):
            raise InputError(
                f"{type(self).__name__}: head={type(self.head).__name__}(…) reads "
                f"{self.head.prefix_tokens} prefix tokens, and there are {len(self.prefix)}; "
                "give a head that reads as many, or one of the patches such as MeanHead."
            )
        pixels = self.patch**2 * self.image_shape[2]
        if self.embedding.weight.shape[0] != pixels:
            raise InputError(
                f"{type(self).__name__}: embedding takes {self.embedding.weight.shape[0]} "
                f"numbers, and a patch of {self.patch} by {self.patch} pixels has {pixels}; "
                "both have to be the same."
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
        """The grid of patches; the prefix tokens are at its centre."""
        return patch_domain(self.grid, len(self.prefix))

    def tokens(self, images: Float[ArrayLike, "..."]) -> Float[Array, "*batch tokens features"]:
        """The embedded prefix and patches, with their positions.

        **Raises:** `InputError` for images of another shape or of integers.
        """
        images = self._checked(jnp.asarray(images))
        u = self.embedding(split_patches(images, self.patch))
        u = after_prefix(self.prefix, u)
        return u + jnp.broadcast_to(self.positions_on(self.grid_of(images)), u.shape)

    def grid_of(self, images: Float[Array, "*batch rows columns channels"]) -> tuple[int, int]:
        """(rows, columns) of patches in images."""
        rows, columns = images.shape[-3:-1]
        return rows // self.patch, columns // self.patch

    def positions_on(self, grid: tuple[int, int]) -> Float[Array, "tokens features"]:
        """The positions on another grid of patches over the same rectangle, interpolated; those
        of the prefix tokens stay."""
        if grid == self.grid:
            return self.positions
        number = len(self.prefix)
        values = resample(self.positions[number:].reshape(*self.grid, -1), grid)
        positions = [self.positions[:number], values.reshape(-1, values.shape[-1])]
        return jnp.concatenate(positions)

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> Float[Array, "..."]:
        v, number = self.output_normalization.project(u), len(self.prefix)
        return self.head(v[..., :number, :], v[..., number:, :])

    def _checked(self, images: Array) -> Float[Array, "*batch rows columns channels"]:
        """Images with an axis of channels, in the dtype of the weights."""
        rows, columns, channels = self.image_shape
        name, built = type(self).__name__, f"[..., {rows}, {columns}, {channels}]"
        alone = not self._takes(images.shape[-3:]) and self._takes((*images.shape[-2:], 1))
        if channels == 1 and (alone or images.shape[-2:] == (rows, columns)):
            images = images[..., None]
        if not self._takes(images.shape[-3:]):
            raise InputError(
                f"{name}: images of shape {images.shape}, but the model was built for {built}; "
                f"{self._advice(images.shape)}"
            )
        check_floating(name, images)
        return images.astype(self.embedding.weight.dtype)

    def _takes(self, shape: tuple[int, ...]) -> bool:
        return shape == self.image_shape

    def _advice(self, shape: tuple[int, ...]) -> str:
        """Advice for images of another shape."""
        rows, columns, channels = self.image_shape
        if shape[-3:] == (channels, rows, columns):
            return "channels come last: write jnp.moveaxis(images, -3, -1)."
        if len(shape) < 3 or shape[-1] != channels:
            return f"give images with a last axis of {channels} channels."
        return self._size_advice(shape[-3:-1])

    def _size_advice(self, size: tuple[int, ...]) -> str:
        """Advice for images of another size."""
        rows, columns, _ = self.image_shape
        return f"resize the images to {rows} by {columns} pixels."

    def _check_size(self, rows: int, columns: int) -> None:
        if min(rows, columns) < self.patch or rows % self.patch or columns % self.patch:
            raise InputError(
                f"{type(self).__name__}: patches of {self.patch} by {self.patch} pixels do not "
                f"divide images of {rows} by {columns}; choose multiples of {self.patch}."
            )


def grid_of_shape(patches: int | tuple[int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of patches: as they are given, or of so many in an image of this shape.

    **Raises:** `InputError` for a number of patches that is no such grid.
    """
    if isinstance(patches, tuple):
        return patches
    rows, columns = shape
    height = round(math.sqrt(patches * rows / columns))
    width = round(math.sqrt(patches * columns / rows))
    if height * width != patches or height * columns != width * rows:
        raise InputError(
            f"{patches} patches make no grid of the shape of images of {rows} by {columns}; "
            "give the product of its rows and columns, such as "
            f"{max(height, 1) * max(width, 1)}."
        )
    return height, width


def check_floating(name: str, images: Array) -> None:
    """**Raises:** `InputError` for images of integers."""
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise InputError(
            f"{name}: images of {images.dtype}, but the model takes floating-point "
            "numbers, normalised as in its training; for bytes write "
            "(images / 255 - mean) / std, mean and std those of its preprocessor."
        )


def split_patches(
    images: Float[Array, "*batch rows columns channels"], patch: int
) -> Float[Array, "*batch tokens pixels"]:
    """Each patch as one token, row by row; its pixels row by row, channels last."""
    *batch, rows, columns, channels = images.shape
    grid = images.reshape(*batch, rows // patch, patch, columns // patch, patch, channels)
    tokens = (rows // patch) * (columns // patch)
    return jnp.swapaxes(grid, -4, -3).reshape(*batch, tokens, patch * patch * channels)


def patch_domain(grid: tuple[int, int], prefix: int) -> TokenDomain:
    """The patches at unit spacing, after `prefix` tokens that lie at their centre."""
    return _after_prefix(TokenDomain.uniform(grid), prefix)


def image_domain(
    grid: tuple[int, int], prefix: int, unit: tuple[int, int], area_weights: bool
) -> TokenDomain:
    """The patches of a grid on the rectangle of another one, `unit`, whose patches have area 1.
    With `area_weights` each weighs its area and a prefix token 1, so that the part of that
    token in an integral does not depend on the grid; otherwise as `patch_domain`."""
    if grid == unit or not area_weights:
        return patch_domain(grid, prefix)
    rows, columns = (
        TokenDomain.midpoint(n, (-0.5, side - 0.5)) for n, side in zip(grid, unit, strict=True)
    )
    area = math.prod(unit) / math.prod(grid)
    return _after_prefix(rows.product(columns), prefix, area)


def _after_prefix(patches: TokenDomain, prefix: int, area: float = 1.0) -> TokenDomain:
    """The patches, after `prefix` tokens that lie at their centre."""
    if not prefix:
        return patches
    centre = jnp.mean(patches.points, axis=0, keepdims=True)
    points = jnp.concatenate([centre] * prefix + [patches.points])
    weights = None
    if area != 1:
        weights = jnp.concatenate([jnp.ones(prefix), jnp.full(patches.num_tokens, area)])
    return TokenDomain(points, weights, patches.grid, patches.spacing, prefix=prefix)
