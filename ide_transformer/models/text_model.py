from jaxtyping import Array, ArrayLike, Float, Integer

from ..equation import TokenDomain, affine, product
from .model import AbstractVar, Model
from .text import Text, as_text


class AbstractTextModel(Model):
    """A model of texts: embedded tokens are the points of a one-dimensional Ω_x."""

    embedding: AbstractVar[Float[Array, "vocabulary embedded"]]
    # The longest text, in tokens.
    context: AbstractVar[int]

    @property
    def segment_kinds(self) -> int:
        """The number of segments that the model distinguishes."""
        return 1

    @property
    def domain(self) -> TokenDomain:
        return TokenDomain.uniform(self.context)

    def checked(self, inputs: Integer[ArrayLike, "*batch tokens"] | Text) -> Text:
        """The inputs as a `Text`.

        **Raises:** `InputError` where the model cannot embed it.
        """
        text = as_text(inputs)
        text.check(
            vocabulary=self.embedding.shape[0],
            context=self.context,
            segments=self.segment_kinds,
        )
        return text


def token_logits(
    v: Float[Array, "*batch tokens embedded"],
    embedding: Float[Array, "vocabulary embedded"],
    readout: Float[Array, "vocabulary embedded"] | None,
    bias: Float[Array, " vocabulary"] | None,
) -> Float[Array, "*batch tokens vocabulary"]:
    """`E v + c`, the logits of the tokens.

    **Arguments:**

    - `readout`: E, or `None` for the token embeddings.
    - `bias`: c, or `None` for zero.
    """
    weight = embedding if readout is None else readout
    return affine(product(v, weight.T), None, bias)
