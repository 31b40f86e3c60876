"""Images as inputs: windows are the points of a two-dimensional Ω_x."""

import abc
import dataclasses
import itertools
import math
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import Fraction, NonNegativeInt, PositiveInt
from ..equation import AbstractConstraint, Free, Linear, TokenDomain, drop
from ..errors import InputError
from .parts import AbstractInputs, Embedded
from .text_inputs import after_prefix


if TYPE_CHECKING:
    # Inputs may have a property in its place, so that it is no argument.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


# The a of Keys (1981) that image libraries use; his own is -1/2.
_SLOPE = -0.75


class AbstractImageInputs(AbstractInputs):
    """Images, `[..., rows, columns, channels]`, whose tokens form a grid after learned ones."""

    # (rows, columns, channels) of a full-sized image.
    image_shape: AbstractVar[tuple[int, int, int]]

    @property
    @abc.abstractmethod
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens of a full-sized image."""

    @abc.abstractmethod
    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(rows, columns) of tokens of images of this shape."""


class ImageInputs(AbstractImageInputs):
    """Images by their windows, as a strided convolution embeds them,

        u(x, 0) = I([prefix, N(Σ_k image(s x + k) W_k + b)] + P),   k of a window of w by w,

    with zeros beyond the edges: patches for w = s, windows that overlap for w > s. The grid
    has as many rows and columns as the image, divided by s. Images are floating-point numbers
    `[..., rows, columns, channels]`, or `[..., rows, columns]` for one channel.

    Images of another size are the same rectangle at another resolution, of more or fewer
    windows: positions are interpolated.

    **Arguments:**

    - `image_shape`: (rows, columns, channels) of a full-sized image.
    - `embedding`: W and b, from the `w² channels` numbers of a window, row by row and channels
      last, to features.
    - `stride`, `window`: s and w, in pixels.
    - `padding`: pixels beyond an edge that the first window sees; half of the overlap or more.
    - `prefix`: learned tokens before the windows, each `[features]`: the class token and
      others.
    - `positions`: P, `[prefix + windows, features]`; `None` where windows and operators tell
      where a token is.
    - `embedding_normalization`, `normalization`: N and I.
    - `area_weights`: whether windows of images of another size have quadrature weights, their
      area, and a learned token 1; otherwise all tokens weigh the same. Without learned tokens
      both are one.
    - `fixed_size`: whether images of another size are refused, for weights that exist.
    - `dropout`: the rate on what I is applied to.

    **Raises:** `InputError` where the stride does not divide the image, the windows leave
    pixels out, or positions and weights are not as many as tokens and pixels.
    """

    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = eqx.field(static=True)
    embedding: Linear
    stride: PositiveInt = eqx.field(static=True)
    window: PositiveInt = eqx.field(static=True)
    padding: NonNegativeInt = eqx.field(static=True, default=0)
    _: KW_ONLY
    prefix: tuple[Float[Array, " features"], ...] = ()
    positions: Float[Array, "tokens features"] | None = None
    embedding_normalization: AbstractConstraint = Free()
    normalization: AbstractConstraint = Free()
    area_weights: bool = eqx.field(static=True, default=False)
    fixed_size: bool = eqx.field(static=True, default=False)
    dropout: Fraction = eqx.field(static=True, default=0.0)

    def __check_init__(self):
        _check_window(self.window, self.stride, self.padding)
        tokens = self.prefix_tokens + math.prod(self.grid)
        if self.positions is not None and self.positions.shape[0] != tokens:
            raise InputError(
                f"ImageInputs: {self.positions.shape[0]} positions, but {self.prefix_tokens} "
                f"prefix tokens and {math.prod(self.grid)} patches; give one row for each."
            )
        pixels = self.window**2 * self.image_shape[2]
        if self.embedding.weight.shape[0] != pixels:
            raise InputError(
                f"ImageInputs: embedding takes {self.embedding.weight.shape[0]} numbers, and a "
                f"window of {self.window} by {self.window} pixels has {pixels}; both have to "
                "be the same."
            )

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def prefix_tokens(self) -> int:
        return len(self.prefix)

    @property
    def grid(self) -> tuple[int, int]:
        return self.grid_of(self.image_shape)

    @property
    def domain(self) -> TokenDomain:
        """The grid of windows; the learned tokens are at its centre."""
        return image_domain(self.grid, self.prefix_tokens, self.grid, area_weights=False)

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """(rows, columns) of windows of images of this shape.

        **Raises:** `InputError` where the stride does not divide them.
        """
        rows, columns, _ = self._with_channels(shape)[-3:]
        if not (rows and columns) or rows % self.stride or columns % self.stride:
            raise InputError(
                f"ImageInputs: a stride of {self.stride} does not divide images of {rows} by "
                f"{columns}; choose multiples of {self.stride}."
            )
        return rows // self.stride, columns // self.stride

    def embed(
        self, inputs: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> Embedded:
        images = self._checked(jnp.asarray(inputs))
        grid, number = self.grid_of(images.shape), self.prefix_tokens
        u = self.embedding(windows(images, self.window, self.stride, self.padding))
        u = after_prefix(self.prefix, self.embedding_normalization.project(u))
        if self.positions is not None:
            u = u + jnp.broadcast_to(self._positions_on(self.positions, grid), u.shape)
        u = self.normalization.project(drop(u, self.dropout, key))
        return Embedded(u, image_domain(grid, number, self.grid, self.area_weights))

    def with_tokens(self, tokens: int | tuple[int, int]) -> "ImageInputs":
        """Fit inputs of fixed size to images of (rows, columns) windows, or of so many in the
        shape of their own; others are the same."""
        if not self.fixed_size:
            return self
        grid, positions = grid_of_number(tokens, self.grid), self.positions
        rows, columns = (number * self.stride for number in grid)
        return dataclasses.replace(
            self,
            image_shape=(rows, columns, self.image_shape[2]),
            positions=None if positions is None else self._positions_on(positions, grid),
        )

    def _positions_on(
        self, positions: Float[Array, "tokens features"], grid: tuple[int, int]
    ) -> Float[Array, "others features"]:
        """The positions on another grid over the same rectangle, interpolated; those of the
        prefix tokens stay."""
        if grid == self.grid:
            return positions
        number = self.prefix_tokens
        values = resample(positions[number:].reshape(*self.grid, -1), grid)
        return jnp.concatenate([positions[:number], values.reshape(-1, values.shape[-1])])

    def _takes(self, shape: tuple[int, ...]) -> bool:
        if self.fixed_size or len(shape) != 3:
            return shape == self.image_shape
        rows, columns, channels = shape
        divided = not rows % self.stride and not columns % self.stride
        return rows > 0 and columns > 0 and divided and channels == self.image_shape[2]

    def _with_channels(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of images with the axis of one channel, which may be left out."""
        alone = not self._takes(shape[-3:]) and self._takes((*shape[-2:], 1))
        missing = alone or shape[-2:] == self.image_shape[:2]
        return (*shape, 1) if self.image_shape[2] == 1 and missing else shape

    def _checked(self, images: Array) -> Float[Array, "*batch rows columns channels"]:
        """Images with an axis of channels, in the dtype of the weights."""
        images = images.reshape(self._with_channels(images.shape))
        if not self._takes(images.shape[-3:]):
            raise InputError(
                f"ImageInputs: images of shape {images.shape}, but the model was built for "
                f"[..., {', '.join(map(str, self.image_shape))}]; {self._advice(images.shape)}"
            )
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"ImageInputs: images of {images.dtype}, but the model takes floating-point "
                "numbers, normalised as in its training; for bytes write "
                "(images / 255 - mean) / std, mean and std those of its preprocessor."
            )
        return images.astype(self.embedding.weight.dtype)

    def _advice(self, shape: tuple[int, ...]) -> str:
        """Advice for images of another shape."""
        rows, columns, channels = self.image_shape
        if shape[-3:] == (channels, rows, columns):
            return "channels come last: write jnp.moveaxis(images, -3, -1)."
        if len(shape) < 3 or shape[-1] != channels:
            return f"give images with a last axis of {channels} channels."
        sides = shape[-3:-1]
        if not all(side and side % self.stride == 0 for side in sides):
            return (
                f"a stride of {self.stride} does not divide images of {sides[0]} by "
                f"{sides[1]}; resize them to {rows} by {columns} pixels, or to other multiples."
            )
        patches = tuple(side // self.stride for side in sides)
        return f"resize the images, or the model: model.on(Mesh(tokens={patches}))."


def grid_of_number(patches: int | tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
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


def image_domain(
    grid: tuple[int, int], prefix: int, unit: tuple[int, int], area_weights: bool
) -> TokenDomain:
    """The windows of a grid, after `prefix` learned tokens that lie at their centre: at unit
    spacing, or, with `area_weights`, on the rectangle of another grid, `unit`, whose windows
    have area 1. Then each weighs its area and a learned token 1, so that the part of that
    token in an integral does not depend on the grid."""
    weighted = area_weights and grid != unit
    windows = TokenDomain.uniform(grid)
    if weighted:
        rows, columns = (
            TokenDomain.midpoint(n, (-0.5, m - 0.5)) for n, m in zip(grid, unit, strict=True)
        )
        windows = rows.product(columns)
    if not prefix:
        return windows
    centre = jnp.mean(windows.points, axis=0, keepdims=True)
    points = jnp.concatenate([centre] * prefix + [windows.points])
    area, weights = math.prod(unit) / math.prod(grid), None
    if weighted and area != 1:
        weights = jnp.concatenate([jnp.ones(prefix), jnp.full(windows.num_tokens, area)])
    return TokenDomain(points, weights, windows.grid, windows.spacing, prefix=prefix)


def windows(
    images: Float[Array, "*batch rows columns channels"], window: int, stride: int, padding: int
) -> Float[Array, "*batch tokens pixels"]:
    """The pixels of each window, one window in each `stride` rows and columns; row by row,
    channels last, zeros beyond the edges."""
    *batch, rows, columns, channels = images.shape
    tokens = (rows // stride) * (columns // stride)
    if window == stride and not padding:
        patches = images.reshape(*batch, rows // stride, stride, -1, stride, channels)
        return jnp.swapaxes(patches, -4, -3).reshape(*batch, tokens, -1)
    edges = [(0, 0)] * len(batch) + [(padding, padding)] * 2 + [(0, 0)]
    wide = jnp.pad(images, edges)
    pixels = [
        wide[..., i : i + rows : stride, j : j + columns : stride, :]
        for i, j in itertools.product(range(window), repeat=2)
    ]
    return jnp.concatenate(pixels, axis=-1).reshape(*batch, tokens, -1)


def _check_window(window: int, stride: int, padding: int) -> None:
    """Refuses windows that leave pixels out, or of which there is not one for each stride."""
    if window < stride:
        raise InputError(
            f"ImageInputs: window={window} leaves out pixels between windows that are stride="
            f"{stride} apart; choose a window of {stride} or more."
        )
    if not window - stride <= 2 * padding < window:
        least, most = (window - stride + 1) // 2, (window - 1) // 2
        raise InputError(
            f"ImageInputs: padding={padding} with window={window} and stride={stride} does not "
            f"give one window for each {stride} pixels; choose one from {least} to {most}."
        )


def resample(
    values: Float[Array, "rows columns features"], grid: tuple[int, int]
) -> Float[Array, "new_rows new_columns features"]:
    """Bicubic interpolation of values at the centres of the cells of one grid to those of
    another one over the same rectangle. Separable: `out[i, j] = Σ_kl R_ik C_jl values[k, l]`.
    On the same grid it is the identity.

    **Arguments:**

    - `grid`: (rows, columns) of the other grid.
    """
    rows, columns = (
        jnp.asarray(bicubic_matrix(old, new), values.dtype)
        for old, new in zip(values.shape, grid, strict=False)
    )
    highest = lax.Precision.HIGHEST
    return jnp.einsum("ik,jl,klf->ijf", rows, columns, values, precision=highest)


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """`[new, old]`: the weights of `old` points in each of `new` points of one axis. Beyond
    the ends the last value goes on. Reference: Keys, IEEE Trans. ASSP 29 (1981) 1153."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centres).astype(int) - 1
    matrix = np.zeros((new, old))
    for neighbour in range(4):
        points = first + neighbour
        places = np.arange(new), np.clip(points, 0, old - 1)
        np.add.at(matrix, places, _kernel(np.abs(centres - points)))
    return matrix


def _kernel(x: np.ndarray) -> np.ndarray:
    """Keys' convolution kernel for distances `0 ≤ x ≤ 2`."""
    a = _SLOPE
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, far)
