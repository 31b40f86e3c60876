import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..arguments import Fraction, NonNegativeFloat, PositiveInt
from ..equation import (
    AbstractConstraint,
    AbstractControl,
    Free,
    LayerNorm,
    Linear,
    TokenDomain,
    as_control,
    drop,
)
from .classifier import AbstractImageClassifier
from .image_heads import AbstractImageHead, MeanHead, PrefixHead
from .image_model import AbstractImageModel, image_domain
from .model import Discretization


class ImageClassifier(AbstractImageModel, AbstractImageClassifier):
    """A vision Transformer to be trained: patches of an image are the points of a
    two-dimensional Ω_x. `ImageEncoder` is for weights that exist.

    `model(images)` maps `images: [..., rows, columns, channels]` (or `[..., rows, columns]`
    for one channel) to the logits of the classes, `[..., classes]`. Reference: Dosovitskiy et
    al., arXiv 2010.11929.

    Images of another size are the same rectangle at another resolution, of more or fewer
    patches: positions are interpolated, and beside a class token patches are weighted by area.

    **Arguments:**

    - `image_shape`: (rows, columns, channels).
    - `patch`: the side of a patch in pixels; it must divide rows and columns.
    - `classes`, `features`: sizes.
    - `control`, `constraint`: as for `Equation`.
    - `discretization`: how the equation is solved.
    - `area_weights`: whether patches of images of another size have quadrature weights, their
      area; otherwise all tokens weigh the same. Without a class token both are one.
    - `class_token`: whether to read the class from an extra learned token, which is put
      before the patches; otherwise it is read from the mean over patches.
    - `input_normalization`, `output_normalization`: applied to the embedded input and before
      the head.
    - `dropout`: the rate on the embedded input.
    - `std`: the standard deviation of the initial embeddings.

    **Raises:** `InputError` where the patch does not divide the image.
    """

    # Runs store the weights in this order.
    embedding: Linear
    positions: Float[Array, "tokens features"]
    prefix: tuple[Float[Array, " features"], ...]
    head: AbstractImageHead
    control: AbstractControl
    constraint: AbstractControl
    input_normalization: AbstractConstraint
    output_normalization: AbstractConstraint
    discretization: Discretization
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    area_weights: bool = eqx.field(static=True)
    dropout: float = eqx.field(static=True)

    def __init__(
        self,
        image_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        patch: PositiveInt,
        classes: PositiveInt,
        features: PositiveInt,
        *,
        control: AbstractControl,
        constraint: AbstractConstraint | AbstractControl,
        discretization: Discretization,
        key: PRNGKeyArray,
        class_token: bool = False,
        area_weights: bool = True,
        input_normalization: AbstractConstraint = Free(),
        output_normalization: AbstractConstraint = LayerNorm(),
        dropout: Fraction = 0.0,
        std: NonNegativeFloat = 0.02,
    ):
        rows, columns, channels = image_shape
        pixels = patch * patch * channels
        tokens = (rows // patch) * (columns // patch) + class_token
        keys = jax.random.split(key, 3)
        self.embedding = Linear(pixels, features, bias=True, std=std, key=keys[0])
        self.positions = std * jax.random.normal(keys[1], (tokens, features))
        self.prefix = (jnp.zeros(features),) if class_token else ()
        classifier = Linear(features, classes, bias=True, std=std, key=keys[2])
        self.head = PrefixHead((classifier,)) if class_token else MeanHead(classifier)
        self.control = control
        self.constraint = as_control(constraint, control)
        self.input_normalization = input_normalization
        self.output_normalization = output_normalization
        self.discretization = discretization
        self.image_shape = image_shape
        self.patch = patch
        self.area_weights = area_weights
        self.dropout = dropout

    def embed(
        self, inputs: Float[ArrayLike, "..."], *, key: PRNGKeyArray | None = None
    ) -> tuple[Float[Array, "*batch tokens features"], TokenDomain]:
        images = self._checked(jnp.asarray(inputs))
        u = drop(self.tokens(images), self.dropout, key)
        grid = self.grid_of(images)
        domain = image_domain(grid, len(self.prefix), self.grid, self.area_weights)
        return self.input_normalization.project(u), domain

    def _takes(self, shape: tuple[int, ...]) -> bool:
        rows, columns, channels = shape if len(shape) == 3 else (0, 0, 0)
        sides_fit = not rows % self.patch and not columns % self.patch
        return rows > 0 and columns > 0 and sides_fit and channels == self.image_shape[2]

    def _size_advice(self, size: tuple[int, ...]) -> str:
        return f"{super()._size_advice(size)[:-1]}, or to other multiples of {self.patch}."
