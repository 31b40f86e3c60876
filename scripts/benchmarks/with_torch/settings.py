"""The language models whose training is measured."""

from typing import NamedTuple

import numpy as np

from ide_transformer.tasks import Batch
from ide_transformer.training import Config, ModelConfig, TrainingConfig


class Setting(NamedTuple):
    """Sizes of a language model of the kind of configs/shakespeare.yaml, and of its batches."""

    layers: int
    batch: int
    context: int
    width: int
    heads: int = 4
    vocabulary: int = 84

    def __str__(self) -> str:
        return f"{self.layers} layers, {self.batch} x {self.context}, width {self.width}"

    @property
    def tokens(self) -> int:
        """Tokens of a batch."""
        return self.batch * self.context

    @property
    def config(self) -> Config:
        """The configuration of such a run."""
        return Config(
            model=ModelConfig(
                width=self.width, heads=self.heads, depth=self.layers, context=self.context
            ),
            training=TrainingConfig(batch_size=self.batch),
        )

    def batches(self, number: int) -> list[Batch]:
        """Batches of walks around the vocabulary with random short steps, which can be
        learned."""
        random = np.random.default_rng(0)
        batches = []
        for _ in range(number):
            steps = random.geometric(0.3, (self.batch, self.context + 1))
            tokens = (np.cumsum(steps, axis=1) % self.vocabulary).astype(np.int32)
            batches.append(Batch(tokens[:, :-1], tokens[:, 1:]))
        return batches

    @property
    def model_flops(self) -> float:
        """Floating point operations that one training step of the mathematics needs,
        `6 N` for each token, N the weights of all products (those with the vocabulary
        included), and `6 layers context² width` for each sample: the products of attention, of
        which a causal one needs half of `12 layers context² width`. What is recomputed does
        not count."""
        weights = 12 * self.layers * self.width**2 + self.vocabulary * self.width
        attention = 6 * self.layers * self.context**2 * self.width
        return 6.0 * weights * self.tokens + float(attention * self.batch)


SETTINGS = {
    "small": Setting(4, 12, 64, 128),
    "medium": Setting(6, 8, 256, 256),
    "gpt2": Setting(12, 8, 1024, 768, heads=12, vocabulary=50257),
}
