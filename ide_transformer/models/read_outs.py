"""Read-outs: maps from the state at depth T to the outputs. N is their `normalization`."""

import abc
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from ..arguments import NonNegativeFloat, PositiveInt, checked
from ..equation import (
    PLAIN,
    AbstractConstraint,
    Free,
    FunctionSpace,
    LayerNorm,
    Linear,
    State,
    affine,
    product,
    with_fields,
)
from ..errors import InputError
from .parts import AbstractInputs, AbstractReadOut, Text
from .text_inputs import TextInputs, as_text
from .units import Statistics, check_statistics, unstandardize


Part = TypeVar("Part")


class MaskedTokenHead(eqx.Module):
    """Logits of masked tokens, `E N(σ(W u + b)) + c`, with W and b from `dense`. E is `readout`
    or the token embeddings. Reference: Devlin et al., arXiv 1810.04805."""

    dense: Linear
    normalization: AbstractConstraint
    readout: Float[Array, "vocabulary features"] | None
    bias: Float[Array, " vocabulary"]
    activation: Callable = eqx.field(static=True)

    def __call__(
        self, u: State, embedding: Float[Array, "vocabulary embedded"]
    ) -> Float[Array, "*batch tokens vocabulary"]:
        v = self.normalization.project(self.activation(self.dense(u)))
        weight = embedding if self.readout is None else self.readout
        return affine(product(v, weight.T), None, self.bias)


@checked
class States(AbstractReadOut):
    """The states `N(u)`, `[..., tokens, features]`. The methods `pooled` and `logits` apply the
    `pooler` and the `head` of an encoder."""

    normalization: AbstractConstraint = Free()
    pooler: Linear | None = None
    head: MaskedTokenHead | None = None

    def __call__(self, u: State, inputs: AbstractInputs) -> State:
        return self.normalization.project(u)

    def pooled(self, states: State) -> Float[Array, "*batch pooled"]:
        """`tanh(W u_0 + b)` for the first token."""
        pooler = _require(self.pooler, "pooler; use states[..., 0, :]")
        return jnp.tanh(pooler(states[..., 0, :]))

    def logits(
        self, states: State, inputs: TextInputs
    ) -> Float[Array, "*batch tokens vocabulary"]:
        """The logits of the token at each position; `inputs` is `model.inputs`."""
        head = _require(self.head, "masked-token head")
        return head(states, inputs.embedding)


@checked
class TokenLogits(AbstractReadOut):
    """Logits of the next token, `E N(u) + c`: `[..., tokens, vocabulary]`.

    **Arguments:**

    - `weight`: E, `[vocabulary, features]`; `None` for the token embeddings of the inputs.
    - `bias`: c; `None` for zero.
    - `normalization`: N.
    """

    weight: Float[Array, "vocabulary features"] | None = None
    bias: Float[Array, " vocabulary"] | None = None
    normalization: AbstractConstraint = LayerNorm()

    @classmethod
    @checked
    def build(
        cls,
        vocabulary: PositiveInt,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        tied: bool = True,
        bias: bool = False,
        normalization: AbstractConstraint = LayerNorm(),
        std: NonNegativeFloat = 0.02,
    ) -> "TokenLogits":
        """Draw E with standard deviation `std`, unless `tied`. `bias`: whether c exists."""
        weight = None if tied else std * jax.random.normal(key, (vocabulary, features))
        return cls(weight, jnp.zeros(vocabulary) if bias else None, normalization)

    def __call__(
        self, u: State, inputs: AbstractInputs
    ) -> Float[Array, "*batch tokens vocabulary"]:
        v = self.normalization.project(u)
        return affine(product(v, self._weight_for(inputs).T), None, self.bias)

    def _weight_for(self, inputs: AbstractInputs) -> Float[Array, "vocabulary features"]:
        return inputs.embedding if self.weight is None else self.weight  # pyright: ignore

    def check(self, inputs: AbstractInputs) -> None:
        table = getattr(inputs, "embedding", None)
        if self.weight is None and getattr(table, "shape", ())[1:] != (inputs.features,):
            raise InputError(
                f"TokenLogits: {type(inputs).__name__} has no embeddings of {inputs.features} "
                "features; pass weight=…."
            )

    def at_points(self, space: FunctionSpace, inputs: AbstractInputs) -> "TokenLogits":
        # Logits are integrals over y, so E differs from the embedding even if it is tied.
        return with_fields(
            self,
            weight=space.features.of_duals(self._weight_for(inputs)),
            normalization=self.normalization.at_points(space),
        )


class AbstractLinearReadOut(AbstractReadOut):
    """`W pool(N(u)) + b`, with W and b from `linear`. A subclass defines `pool`."""

    linear: Linear
    normalization: AbstractConstraint = LayerNorm()

    @abc.abstractmethod
    def pool(self, v: State, inputs: AbstractInputs) -> Float[Array, "..."]:
        """The vectors that `linear` maps; v is the normalised state."""

    def values(self, u: State, inputs: AbstractInputs) -> Float[Array, "..."]:
        """`W pool(N(u)) + b`."""
        return self.linear(self.pool(self.normalization.project(u), inputs))

    def __call__(self, u: State, inputs: AbstractInputs) -> Float[Array, "..."]:
        return self.values(u, inputs)

    def at_points(self, space: FunctionSpace, inputs: AbstractInputs) -> AbstractReadOut:
        return with_fields(
            self,
            linear=self.linear.at_points(space.features, PLAIN),
            normalization=self.normalization.at_points(space),
        )


class AbstractValues(AbstractLinearReadOut):
    """Numbers `mean + std (W pool(N(u)) + b)`.

    **Arguments:**

    - `channels`: whether the outputs have an axis of numbers; if not, there is one number.
    - `statistics`: mean and std of each number, see `statistics`; `None` for 0 and 1.
    """

    channels: bool = eqx.field(static=True, default=False)
    statistics: Statistics | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_statistics(self, self.statistics, self.number)
        if not self.channels and self.number != 1:
            raise InputError(
                f"{type(self).__name__}: {self.number} numbers need an axis; set "
                "channels=True (for FunctionValues also the channels of the inputs)."
            )

    @property
    def number(self) -> int:
        """The number of outputs, or of outputs at each point."""
        return self.linear.weight.shape[1]

    def __call__(self, u: State, inputs: AbstractInputs) -> Float[Array, "..."]:
        outputs = unstandardize(self.values(u, inputs), self.statistics)
        return outputs if self.channels else outputs[..., 0]


class AbstractClassifier(AbstractReadOut):
    """Logits of classes, `[..., classes]`."""


@checked
class PrefixHead(AbstractClassifier):
    """Logits of classes from the first k learned tokens,

        (1/k) Σ_i (W_i N(u_i) + b_i):  `[..., classes]`.

    k = 1 reads the class token, k = 2 also the distillation token (DeiT, arXiv 2012.12877)."""

    classifiers: tuple[Linear, ...]
    normalization: AbstractConstraint = LayerNorm()

    @classmethod
    @checked
    def build(
        cls,
        classes: PositiveInt,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint = LayerNorm(),
        std: NonNegativeFloat = 0.02,
    ) -> "PrefixHead":
        """Draw the classifier of one learned token, W with standard deviation `std`."""
        return cls((Linear(features, classes, std=std, key=key),), normalization)

    def __call__(self, u: State, inputs: AbstractInputs) -> Float[Array, "*batch classes"]:
        v = self.normalization.project(u)
        logits = [linear(v[..., i, :]) for i, linear in enumerate(self.classifiers)]
        return jnp.mean(jnp.stack(logits), axis=0)

    def check(self, inputs: AbstractInputs) -> None:
        _check_prefix(self, len(self.classifiers), inputs)

    def at_points(self, space: FunctionSpace, inputs: AbstractInputs) -> "PrefixHead":
        y = space.features
        classifiers = tuple(x.at_points(y, PLAIN) for x in self.classifiers)
        return PrefixHead(classifiers, self.normalization.at_points(space))


class AbstractMeanReadOut(AbstractLinearReadOut):
    """A linear map of the mean over Ω_x, with the quadrature weights of the input's tokens."""

    def pool(self, v: State, inputs: AbstractInputs) -> Float[Array, "*batch features"]:
        """`∫ v dx / |Ω_x|` over the tokens of the inputs, without learned tokens."""
        domain = inputs.domain
        if domain.weights is None:
            return jnp.mean(v[..., inputs.prefix_tokens :, :], axis=-2)
        return domain.mean(v)

    def check(self, inputs: AbstractInputs) -> None:
        if getattr(inputs, "masks", False):
            raise InputError(
                f"{type(self).__name__}: the mean over all tokens counts padding; use "
                "TextInputs(masks=False), or PrefixHead."
            )


@checked
class MeanHead(AbstractMeanReadOut, AbstractClassifier):
    """Logits of classes from the mean over Ω_x, with the input's quadrature weights,

        W ∫ N(u(x)) dx / |Ω_x| + b:  `[..., classes]`.

    `linear` holds W and b."""

    @classmethod
    @checked
    def build(
        cls,
        classes: PositiveInt,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        normalization: AbstractConstraint = LayerNorm(),
        std: NonNegativeFloat = 0.02,
    ) -> "MeanHead":
        """Draw W with standard deviation `std`."""
        return cls(Linear(features, classes, std=std, key=key), normalization)


@checked
class MeanValues(AbstractMeanReadOut, AbstractValues):
    """Numbers from the mean over Ω_x, with the quadrature weights of the input's tokens,

        mean + std (W ∫ N(u(x)) dx / |Ω_x| + b):  `[...]`, or `[..., numbers]`.

    `linear` holds W and b; for `channels` and `statistics` see `AbstractValues`."""

    @classmethod
    @checked
    def build(
        cls,
        features: PositiveInt,
        *,
        key: PRNGKeyArray,
        numbers: PositiveInt | None = None,
        normalization: AbstractConstraint = LayerNorm(),
        statistics: Statistics | None = None,
        std: NonNegativeFloat = 0.02,
    ) -> "MeanValues":
        """Draw W with standard deviation `std`. `numbers=None`: one number without an axis."""
        linear = Linear(features, numbers or 1, std=std, key=key)
        return cls(linear, normalization, numbers is not None, statistics)


@checked
class PrefixAndMeanHead(AbstractMeanReadOut, AbstractClassifier):
    """Logits of classes from the first learned token and the mean over the input's tokens,
    `W [N(u_0), mean_x N(u(x))] + b` (DINOv2: Oquab et al., arXiv 2304.07193)."""

    def pool(self, v: State, inputs: AbstractInputs) -> Float[Array, "*batch twice_features"]:
        mean = jnp.mean(v[..., inputs.prefix_tokens :, :], axis=-2)
        return jnp.concatenate([v[..., 0, :], mean], axis=-1)

    def check(self, inputs: AbstractInputs) -> None:
        _check_prefix(self, 1, inputs)
        super().check(inputs)


def mean_vectors(
    states: State, text: Text | Integer[Array | np.ndarray, "*batch tokens"]
) -> Float[Array, "*batch features"]:
    """The mean of states without padding, scaled to length one (arXiv 1908.10084)."""
    mask = as_text(text).mask
    weights = jnp.ones(states.shape[:-1]) if mask is None else jnp.asarray(mask)
    weights = weights[..., None].astype(states.dtype)
    mean = jnp.sum(weights * states, axis=-2) / jnp.sum(weights, axis=-2)
    length = jnp.sqrt(jnp.sum(mean**2, axis=-1, keepdims=True))
    return mean / jnp.maximum(length, 1e-12)


def _require(part: Part | None, name: str) -> Part:
    if part is None:
        raise InputError(f"States: the model has no {name}.")
    return part


def _check_prefix(read_out: AbstractReadOut, tokens: int, inputs: AbstractInputs) -> None:
    if tokens > inputs.prefix_tokens:
        raise InputError(
            f"{type(read_out).__name__} reads {tokens} learned tokens, but the inputs have "
            f"{inputs.prefix_tokens}; set class_token=True, or use MeanHead."
        )
