"""Inputs that are images, whose windows are the points of a two-dimensional Ω_x."""

import abc
import dataclasses
import itertools
import math
from dataclasses import KW_ONLY

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, PyTree

from ..arguments import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, checked
from ..equation import AbstractConstraint, Free, Linear, TokenDomain, drop
from ..errors import InputError
from .parts import AbstractInputs, Embedded
from .text_inputs import after_prefix
from .units import Statistics, check_statistics, standardize


class AbstractImageInputs(AbstractInputs):
    """Embeds images, `[..., rows, columns, channels]`, as learned tokens and then a grid."""

    # (rows, columns, channels) of a full-sized image.
    image_shape: eqx.AbstractVar[tuple[int, int, int]]

    @property
    def grid(self) -> tuple[int, int]:
        """The grid of tokens, (rows, columns), of a full-sized image."""
        return self.grid_of(self.image_shape)

    @abc.abstractmethod
    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The grid of tokens, (rows, columns), of images of a shape."""


@checked
class ImageInputs(AbstractImageInputs):
    """Windows of images, embedded by a strided convolution,

        u(x, 0) = I([prefix, N(Σ_k image(s x + k) W_k + b)] + P),   k in a window of w by w,

    with zeros beyond the edges: patches for w = s, overlapping windows for w > s. Images are
    floating-point numbers `[..., rows, columns, channels]`, or `[..., rows, columns]` for one
    channel. The grid has rows / s by columns / s tokens. An image of another size shows the
    same rectangle, so its positions are interpolated.

    **Arguments:**

    - `image_shape`: (rows, columns, channels) of a full-sized image.
    - `embedding`: W and b, from the pixels of a window (row by row, channels last).
    - `stride`, `window`: s and w, in pixels.
    - `padding`: zeros beyond each edge, in pixels; at least half of the overlap of windows.
    - `prefix`: learned tokens before the windows, each `[features]`, such as the class token.
    - `positions`: P, `[prefix + windows, features]`, or `None`.
    - `embedding_normalization`, `normalization`: N and I.
    - `area_weights`: whether windows of an image of another size have their area as weight.
    - `fixed_size`: whether to refuse images of another size (checkpoints).
    - `dropout`: the dropout rate before I.
    - `statistics`: the mean and the standard deviation of each channel, see `statistics`, to
      standardize images; `None` for images that already are.
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
    statistics: Statistics | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_statistics(self, self.statistics, self.image_shape[2])
        window = self.window
        stride = self.stride
        if not 0 <= window - stride <= 2 * self.padding < window:
            least = max((window - stride + 1) // 2, 0)
            raise InputError(
                f"ImageInputs: got {window=} and padding={self.padding}; use a window of "
                f"{stride} or more, and padding from {least} to {(window - 1) // 2}."
            )
        pixels = window**2 * self.image_shape[2]
        tokens = self.prefix_tokens + math.prod(self.grid)
        embedding_rows = self.embedding.weight.shape[0]
        position_rows = tokens if self.positions is None else self.positions.shape[0]
        if (embedding_rows, position_rows) != (pixels, tokens):
            raise InputError(
                f"ImageInputs: embedding has {embedding_rows} rows and positions "
                f"{position_rows}, expected {pixels} and {tokens}."
            )

    @classmethod
    @checked
    def build(
        cls,
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        stride: PositiveInt,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        window: PositiveInt | None = None,
        padding: NonNegativeInt | None = None,
        class_token: bool = False,
        learned_positions: bool = True,
        embedding_normalization: AbstractConstraint = Free(),
        normalization: AbstractConstraint = Free(),
        area_weights: bool = True,
        dropout: Fraction = 0.0,
        statistics: Statistics | None = None,
        std: NonNegativeFloat = 0.02,
    ) -> "ImageInputs":
        """Draw the embedding and the positions.

        **Arguments:** see the class, and

        - `features`: the width of the state.
        - `window`, `padding`: by default `stride`, and half of the overlap, rounded up.
        - `class_token`: whether to put a learned token before the windows.
        - `learned_positions`: whether to add P.
        - `std`: the standard deviation of W and P.
        """
        rows, columns, channels = image_shape
        # The read-out uses the third key.
        embedding_key, position_key, _ = jax.random.split(key, 3)
        if window is None:
            window = stride
        if padding is None:
            padding = max(window - stride + 1, 0) // 2
        positions = None
        if learned_positions:
            tokens = (rows // stride) * (columns // stride) + class_token
            positions = std * jax.random.normal(position_key, (tokens, features))
        embedding = Linear(window**2 * channels, features, std=std, key=embedding_key)
        return cls(
            image_shape,
            embedding,
            stride,
            window,
            padding,
            prefix=(jnp.zeros(features),) if class_token else (),
            positions=positions,
            embedding_normalization=embedding_normalization,
            normalization=normalization,
            area_weights=area_weights,
            dropout=dropout,
            statistics=statistics,
        )

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def prefix_tokens(self) -> int:
        return len(self.prefix)

    @property
    def domain(self) -> TokenDomain:
        """The grid of windows, with the learned tokens at its centre."""
        return image_domain(self.grid, self.prefix_tokens, self.grid, area_weights=False)

    def grid_of(self, shape: tuple[int, ...]) -> tuple[int, int]:
        stride = self.stride
        *size, channels = self.image_shape
        *_, rows, columns, last = (0, 0, *self._with_channels(shape))
        fits = rows and columns and last == channels and not (rows % stride or columns % stride)
        if not fits or (self.fixed_size and [rows, columns] != size):
            axes = "rows, columns"
            advice = ""
            if self.fixed_size:
                axes = ", ".join(map(str, size))
                advice = "; for another size use model.on(Mesh(tokens=(rows, columns)))"
            raise InputError(
                f"ImageInputs: got images {shape}, expected [..., {axes}, {channels}] with "
                f"rows and columns that {stride=} divides{advice}."
            )
        return rows // stride, columns // stride

    def _with_channels(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape with an axis of channels, which images of one channel may lack."""
        is_missing = shape[-1:] != (1,) or shape[-2:] == self.image_shape[:2]
        return (*shape, 1) if self.image_shape[2] == 1 and is_missing else shape

    def embed(self, inputs: PyTree[ArrayLike], *, key: PRNGKeyArray | None = None) -> Embedded:
        images = jnp.asarray(inputs)
        grid = self.grid_of(images.shape)
        if not jnp.issubdtype(images.dtype, jnp.floating):
            raise InputError(
                f"ImageInputs: got images of {images.dtype}; pass floating-point numbers, "
                "(images / 255 - mean) / std as in training."
            )
        images = images.reshape(self._with_channels(images.shape))
        images = standardize(images.astype(self.embedding.weight.dtype), self.statistics)
        u = self.embedding(extract_windows(images, self.window, self.stride, self.padding))
        u = after_prefix(self.prefix, self.embedding_normalization.project(u))
        positions = self._positions_on(grid)
        if positions is not None:
            u = u + jnp.broadcast_to(positions, u.shape)
        u = self.normalization.project(drop(u, self.dropout, key))
        return Embedded(u, image_domain(grid, self.prefix_tokens, self.grid, self.area_weights))

    def with_tokens(self, tokens: int | tuple[int, int]) -> "ImageInputs":
        """The inputs for (rows, columns) or a number of windows, if the size is fixed."""
        if not self.fixed_size:
            return self
        grid = grid_of_patches(tokens, self.grid)
        shape = (grid[0] * self.stride, grid[1] * self.stride, self.image_shape[2])
        return dataclasses.replace(self, image_shape=shape, positions=self._positions_on(grid))

    def _positions_on(self, grid: tuple[int, int]) -> Float[Array, "tokens features"] | None:
        """The positions of the prefix, and then those of windows, interpolated to a grid."""
        if self.positions is None or grid == self.grid:
            return self.positions
        prefix, on_grid = jnp.split(self.positions, [self.prefix_tokens])
        values = resample(on_grid.reshape(*self.grid, -1), grid)
        return jnp.concatenate([prefix, values.reshape(-1, self.features)])


def grid_of_patches(patches: int | tuple[int, int], shape: tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of patches; a number becomes a grid with the proportions of `shape`."""
    if isinstance(patches, tuple):
        return patches
    rows, columns = shape
    height = max(round(math.sqrt(patches * rows / columns)), 1)
    width = max(round(math.sqrt(patches * columns / rows)), 1)
    if height * width != patches or height * columns != width * rows:
        raise InputError(f"{patches} patches: use {height * width} for a grid like {shape}.")
    return height, width


def image_domain(
    grid: tuple[int, int], prefix: int, unit: tuple[int, int], area_weights: bool
) -> TokenDomain:
    """The windows of a grid of spacing 1, after `prefix` learned tokens at its centre. With
    `area_weights` they fill the rectangle of the grid `unit`, and their weights are areas."""
    weighted = area_weights and grid != unit
    windows = TokenDomain.uniform(grid)
    if weighted:
        rows = TokenDomain.midpoint(grid[0], (-0.5, unit[0] - 0.5))
        windows = rows.product(TokenDomain.midpoint(grid[1], (-0.5, unit[1] - 0.5)))
    if not prefix:
        return windows
    centre = jnp.mean(windows.points, axis=0, keepdims=True)
    points = jnp.concatenate([centre] * prefix + [windows.points])
    area = math.prod(unit) / math.prod(grid)
    weights = None
    if weighted and area != 1:
        weights = jnp.concatenate([jnp.ones(prefix), jnp.full(windows.num_tokens, area)])
    return TokenDomain(points, weights, windows.grid, windows.spacing, prefix=prefix)


def extract_windows(
    images: Float[Array, "*batch rows columns channels"], window: int, stride: int, padding: int
) -> Float[Array, "*batch tokens pixels"]:
    """The pixels of each window, row by row, channels last, zeros beyond the edges."""
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


def resample(
    values: Float[Array, "rows columns features"], grid: tuple[int, int]
) -> Float[Array, "new_rows new_columns features"]:
    """Interpolates to the cells of another grid over the same rectangle by bicubics."""
    rows = jnp.asarray(bicubic_matrix(values.shape[0], grid[0]), values.dtype)
    columns = jnp.asarray(bicubic_matrix(values.shape[1], grid[1]), values.dtype)
    return jnp.einsum("ik,jl,klf->ijf", rows, columns, values, precision=lax.Precision.HIGHEST)


def bicubic_matrix(old: int, new: int) -> np.ndarray:
    """Interpolation weights `[new, old]` of values that are constant beyond the ends.
    Reference: Keys, IEEE Trans. ASSP 29 (1981) 1153."""
    centres = ((np.arange(new) + 0.5) * old / new - 0.5)[:, None]
    points = np.floor(centres).astype(int) + np.arange(-1, 3)
    x = np.abs(centres - points)
    a = -0.75  # as in image libraries; Keys has -1/2
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    matrix = np.zeros((new, old))
    rows = np.arange(new)[:, None]
    np.add.at(matrix, (rows, np.clip(points, 0, old - 1)), np.where(x <= 1, near, far))
    return matrix
