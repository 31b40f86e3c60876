"""Heads of models of images: outputs from the states at depth T."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..equation import Linear


class AbstractImageHead(eqx.Module):
    """A map from the normalised states at depth T to the outputs of the model."""

    @property
    def prefix_tokens(self) -> int:
        """The number of prefix tokens that it reads."""
        return 0

    @abc.abstractmethod
    def __call__(
        self,
        prefix: Float[Array, "*batch prefix features"],
        patches: Float[Array, "*batch patches features"],
    ) -> Float[Array, "..."]:
        """The outputs, from the states of the prefix tokens and those of the patches."""


class NoHead(AbstractImageHead):
    """The states themselves, `[..., prefix + patches, features]`."""

    def __call__(
        self,
        prefix: Float[Array, "*batch prefix features"],
        patches: Float[Array, "*batch patches features"],
    ) -> Float[Array, "*batch tokens features"]:
        return jnp.concatenate([prefix, patches], axis=-2)


class PrefixHead(AbstractImageHead):
    """Logits of classes from the first k prefix tokens, the mean of one classifier for each,

        (1/k) Σ_i (W_i u_i + b_i):

    k = 1 reads the class token (ViT); k = 2 also the distillation token (DeiT: Touvron et
    al., arXiv 2012.12877).

    **Arguments:**

    - `classifiers`: k linear maps.
    """

    classifiers: tuple[Linear, ...]

    @property
    def prefix_tokens(self) -> int:
        return len(self.classifiers)

    def __call__(
        self,
        prefix: Float[Array, "*batch prefix features"],
        patches: Float[Array, "*batch patches features"],
    ) -> Float[Array, "*batch classes"]:
        logits = [read(prefix[..., i, :]) for i, read in enumerate(self.classifiers)]
        return jnp.mean(jnp.stack(logits), axis=0)


class MeanHead(AbstractImageHead):
    """Logits of classes from the mean of the patches, `W mean_x u(x) + b`.

    **Arguments:**

    - `classifier`: W and b.
    """

    classifier: Linear

    def __call__(
        self,
        prefix: Float[Array, "*batch prefix features"],
        patches: Float[Array, "*batch patches features"],
    ) -> Float[Array, "*batch classes"]:
        return self.classifier(jnp.mean(patches, axis=-2))


class PrefixAndMeanHead(AbstractImageHead):
    """Logits of classes from the first prefix token and the mean of the patches side by
    side, `W [u_0, mean_x u(x)] + b` (DINOv2: Oquab et al., arXiv 2304.07193).

    **Arguments:**

    - `classifier`: W and b; W takes twice the features.
    """

    classifier: Linear

    @property
    def prefix_tokens(self) -> int:
        return 1

    def __call__(
        self,
        prefix: Float[Array, "*batch prefix features"],
        patches: Float[Array, "*batch patches features"],
    ) -> Float[Array, "*batch classes"]:
        both = [prefix[..., 0, :], jnp.mean(patches, axis=-2)]
        return self.classifier(jnp.concatenate(both, axis=-1))
