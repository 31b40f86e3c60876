import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    LayerNorm,
    Linear,
    TokenDomain,
    as_control,
    drop,
    with_fields,
)
from ..errors import InputError
from .classifier import AbstractImageClassifier
from .encoder_parts import after_prefix
from .image_heads import AbstractImageHead, MeanHead, NoHead, PrefixHead
from .image_model import check_floating, image_domain, patch_domain
from .model import Discretization, Model
from .stage import AbstractStage


class ImageStage(AbstractStage, AbstractImageClassifier):
    """A stage of a convolutional vision Transformer: a strided convolution embeds an image, or
    the states of the stage before, on a grid of tokens,

        u(0) = I([class token, N(Σ_k image(s x + k) W_k + b)]),   k of a window of w by w,

    with zeros beyond its edges; w > s lets windows overlap. The grid has as many rows and
    columns as the image, divided by s. There are no positions: the windows and the operators
    `ConvolutionalAttention` tell where a token is. So images of any size can be taken whose
    sides s divides.

    `model(images)` maps `images: [..., rows, columns, channels]` (or `[..., rows, columns]` for
    one channel) to the logits of the classes, `[..., classes]`, or without them to the states
    at depth T, `[..., class token + tokens, features]`. `StagedModel` puts stages together.
    Reference: Wu et al., arXiv 2103.15808.

    **Arguments:**

    - `image_shape`: (rows, columns, channels); another size may be given when it is called.
    - `features`: width of the state.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `window`: w, in pixels. Default: s, patches that do not overlap.
    - `stride`: s.
    - `padding`: pixels beyond an edge that the first window sees; half of the overlap or
      more. Default: half of it, rounded up.
    - `class_token`: whether a learned token is put before the grid; the last stage only may
      have one.
    - `classes`: how many there are to be read out, from the class token or from the mean over
      tokens; `None` for a stage that gives its states.
    - `area_weights`: as for `ImageClassifier`.
    - `embedding_normalization`: N.
    - `input_normalization`: I.
    - `output_normalization`: applied before the classes are read.
    - `dropout`: the rate on the embedded input.
    - `std`: the standard deviation of the initial embeddings.

    **Raises:** `InputError` where the stride does not divide the image, or the windows leave
    pixels out.
    """

    embedding: Linear
    embedding_normalization: AbstractConstraint
    prefix: tuple[Float[Array, " features"], ...]
    head: AbstractImageHead
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    window: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)
    area_weights: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        features: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        window: PositiveInt | None = None,
        stride: PositiveInt = 1,
        padding: NonNegativeInt | None = None,
        class_token: bool = False,
        classes: PositiveInt | None = None,
        area_weights: bool = True,
        embedding_normalization: AbstractConstraint = LayerNorm(),
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ):
        window = stride if window is None else window
        padding = max(window - stride + 1, 0) // 2 if padding is None else padding
        _check_window(window, stride, padding)
        embedding_key, head_key = jax.random.split(key)
        pixels = window * window * image_shape[2]
        self.embedding = Linear(pixels, features, bias=True, std=std, key=embedding_key)
        self.embedding_normalization = embedding_normalization
        self.prefix = (jnp.zeros(features),) if class_token else ()
        self.head, self.output_normalization = NoHead(), Free()
        if classes is not None:
            classifier = Linear(features, classes, bias=True, std=std, key=head_key)
            self.head = PrefixHead((classifier,)) if class_token else MeanHead(classifier)
            self.output_normalization = output_normalization
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.discretization = discretization
        self.image_shape = image_shape
        self.window, self.stride, self.padding = window, stride, padding
        self.area_weights = area_weights
        self.dropout = dropout
        self.grid_of(*image_shape[:2])

    @property
    def features(self) -> int:
        return self.embedding.weight.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of tokens."""
        return self.grid_of(*self.image_shape[:2])

    def grid_of(self, rows: int, columns: int) -> tuple[int, int]:
        """(rows, columns) of tokens of an image of that size.

        **Raises:** `InputError` where the stride does not divide it.
        """
        if not (rows and columns) or rows % self.stride or columns % self.stride:
            raise InputError(
                f"ImageStage: a stride of {self.stride} does not divide images of {rows} by "
                f"{columns}; choose multiples of {self.stride}."
            )
        return rows // self.stride, columns // self.stride

    @property
    def domain(self) -> TokenDomain:
        """The grid of tokens; the class token is at its centre."""
        return patch_domain(self.grid, len(self.prefix))

    def embed(
        self, inputs: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        images = self._checked(jnp.asarray(inputs))
        grid = self.grid_of(*images.shape[-3:-1])
        u = self.embedding(windows(images, self.window, self.stride, self.padding))
        u = self.embedding_normalization.project(u)
        u = drop(after_prefix(self.prefix, u), self.dropout, key)
        domain = image_domain(grid, len(self.prefix), self.grid, self.area_weights)
        return self.input_normalization.project(u), domain

    def read_out(self, u: Float[Array, "*batch tokens features"]) -> Float[Array, "..."]:
        v, number = self.output_normalization.project(u), len(self.prefix)
        return self.head(v[..., :number, :], v[..., number:, :])

    def pass_on(
        self, u: Float[Array, "*batch tokens features"], domain: TokenDomain
    ) -> Float[Array, "*batch rows columns features"]:
        """The states as an image, whose channels are the features."""
        assert domain.grid is not None
        return u.reshape(*u.shape[:-2], *domain.grid, u.shape[-1])

    @property
    def next_sizes(self) -> dict[str, Any]:
        return {"image_shape": (*self.grid, self.features)}

    def check_before(self, following: Model) -> None:
        if self.prefix or type(self.head) is not NoHead:
            raise InputError(
                "it has a class token or a head, which the next stage would not see; only the "
                "last stage may have them: class_token=False, classes=None here."
            )
        expected = (*self.grid, self.features)
        if isinstance(following, ImageStage) and following.image_shape != expected:
            raise InputError(
                f"it gives {self.grid[0]} by {self.grid[1]} tokens of {self.features} "
                f"features, but the next one was built for {following.image_shape}; give it "
                f"image_shape={expected}."
            )

    def with_head(
        self, head: AbstractImageHead, normalization: AbstractConstraint | None = None
    ) -> "ImageStage":
        """Exchange the head: `NoHead()` for its states, a new classifier for
        other classes.

        **Arguments:**

        - `normalization`: applied before the head; `None` for that of this stage.

        **Raises:** `InputError` for a head that reads class tokens which the stage has not.
        """
        if head.prefix_tokens > len(self.prefix):
            raise InputError(
                f"ImageStage.with_head: {type(head).__name__} reads {head.prefix_tokens} class "
                f"token(s), but this stage has {len(self.prefix)}; build it with "
                "class_token=True, or take MeanHead."
            )
        normalization = self.output_normalization if normalization is None else normalization
        return with_fields(self, head=head, output_normalization=normalization)

    def _checked(self, images: Array) -> Float[Array, "*batch rows columns channels"]:
        """Images with an axis of channels, in the dtype of the weights."""
        rows, columns, channels = self.image_shape
        if channels == 1 and images.shape[-1:] != (1,) and images.ndim >= 2:
            images = images[..., None]
        if images.ndim < 3 or images.shape[-1] != channels:
            raise InputError(
                f"ImageStage: images of shape {images.shape}, but the stage takes [..., rows, "
                f"columns, {channels}], for example {rows} by {columns}; channels come last."
            )
        check_floating("ImageStage", images)
        return images.astype(self.embedding.weight.dtype)


def windows(
    images: Float[Array, "*batch rows columns channels"], window: int, stride: int, padding: int
) -> Float[Array, "*batch tokens pixels"]:
    """The pixels of each window, one window in each `stride` rows and columns; row by row,
    channels last, zeros beyond the edges."""
    *batch, rows, columns, _ = images.shape
    edges = [(0, 0)] * len(batch) + [(padding, padding)] * 2 + [(0, 0)]
    wide = jnp.pad(images, edges)
    pixels = [
        wide[..., i : i + rows : stride, j : j + columns : stride, :]
        for i, j in itertools.product(range(window), repeat=2)
    ]
    tokens = (rows // stride) * (columns // stride)
    return jnp.concatenate(pixels, axis=-1).reshape(*batch, tokens, -1)


def _check_window(window: int, stride: int, padding: int) -> None:
    """Refuses windows that leave pixels out, or of which there is not one for each stride."""
    if window < stride:
        raise InputError(
            f"ImageStage: window={window} leaves out pixels between windows that are stride="
            f"{stride} apart; choose a window of {stride} or more."
        )
    if not window - stride <= 2 * padding < window:
        least, most = (window - stride + 1) // 2, (window - 1) // 2
        raise InputError(
            f"ImageStage: padding={padding} with window={window} and stride={stride} does not "
            f"give one window for each {stride} pixels; choose one from {least} to {most}."
        )
