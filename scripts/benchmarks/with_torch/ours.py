"""Language models of this package whose training and generation are measured."""

import contextlib
import functools as ft
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from ide_transformer.errors import InputError
from ide_transformer.models import LanguageModel, Model, TextInputs, TokenLogits, is_built_as
from ide_transformer.models.generate import Draw, write
from ide_transformer.pretrained import Options, families, load_pretrained
from ide_transformer.tasks import Batch
from ide_transformer.training import Config, learning_rate

from ..shared.problem import Shape
from ..shared.timing import seconds_of, temporary_mebibytes
from ..shared.training import Training, config_of
from .processes import timed_steps


# FLOP/s of dense products in bfloat16, by the name of the card; the more special ones first.
_PEAK_FLOPS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}


def full_float32() -> contextlib.AbstractContextManager:
    """Until it is left, factors of float32 are not rounded on an accelerator, as by PyTorch."""
    return jax.default_matmul_precision("float32")


def utilisation(model_flops: float, seconds: float) -> float | None:
    """Model FLOP utilisation of the first device, `model FLOPs / (seconds · peak FLOP/s)` in
    bfloat16; `None` where its peak is not known."""
    kind = jax.devices()[0].device_kind
    peak = next((peak for name, peak in _PEAK_FLOPS.items() if name in kind), None)
    return None if peak is None else model_flops / (seconds * peak)


class Setting(NamedTuple):
    """Sizes of a language model like configs/shakespeare_ordinary.yaml and its batches."""

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
        shape = Shape(self.batch, self.context, self.width, self.heads)
        return config_of(self.layers, shape)

    def batches(self, number: int) -> list[Batch]:
        """Batches of walks around the vocabulary with short random steps."""
        random = np.random.default_rng(0)
        batches = []
        for _ in range(number):
            steps = random.geometric(0.3, (self.batch, self.context + 1))
            tokens = (np.cumsum(steps, axis=1) % self.vocabulary).astype(np.int32)
            batches.append(Batch(tokens[:, :-1], tokens[:, 1:]))
        return batches

    @property
    def model_flops(self) -> float:
        """Floating point operations of a training step, without those that recompute: `6 N` for
        each token, N the weights of all products, and for each sample `6 layers context² width`
        for causal attention, half of that of all pairs."""
        weights = 12 * self.layers * self.width**2 + self.vocabulary * self.width
        attention = 6 * self.layers * self.context**2 * self.width
        return 6.0 * weights * self.tokens + float(attention * self.batch)


SETTINGS = {
    "small": Setting(4, 12, 64, 128),
    "medium": Setting(6, 8, 256, 256),
    "gpt2": Setting(12, 8, 1024, 768, heads=12, vocabulary=50257),
}


_BATCHES = 16


class OwnTraining:
    """The training of a run, with the methods of `theirs.TorchTraining`."""

    def __init__(self, setting: Setting):
        self.setting, self.batches = setting, setting.batches(_BATCHES)
        sizes = {"vocabulary": setting.vocabulary}
        self._training = Training(setting.config, sizes, self.batches)
        self.initial_weights = torch_weights(self._training.model)

    def losses(self, steps: int) -> list[float]:
        """The loss of each of the next steps, before its update."""
        return [float(self._step()) for _ in range(steps)]

    def turn(self, steps: int) -> float:
        """Seconds for each of `steps` steps."""
        return timed_steps(self._step, steps)

    def peak_mebibytes(self) -> float:
        """Memory of one step without weights and the moments of the optimiser."""
        return temporary_mebibytes(self._training.programs[0])

    def state(self) -> dict[str, np.ndarray]:
        """The weights, by the names of the module in PyTorch."""
        return torch_weights(self._training.state.weights)

    def learning_rates(self) -> list[float]:
        """Of all steps of a run."""
        config, steps = self.setting.config, self.setting.config.training.steps
        return np.asarray(learning_rate(config.optimizer, steps)(jnp.arange(steps))).tolist()

    def _step(self) -> Array:
        return self._training.step()["loss"]


def torch_weights(model: Any) -> dict[str, np.ndarray]:
    """The weights of a language model by the names of `theirs.Transformer`."""
    attention, feed_forward = model.control.intervals()
    weights = {
        "embedding": model.inputs.embedding,
        "positions": model.inputs.positions,
        "output_gain": model.read_out.normalization.gain,
    }
    inputs = [part.weight for part in (attention.query, attention.key, attention.value)]
    # `torch.nn.Linear` multiplies by the transpose of its weight.
    layers = {
        "attention_gain": attention.normalization.gain,
        "query_key_value.weight": np.concatenate(inputs, axis=-1).swapaxes(-1, -2),
        "output.weight": attention.output.weight.swapaxes(-1, -2),
        "feed_forward_gain": feed_forward.normalization.gain,
        "inner.weight": feed_forward.inner.weight.swapaxes(-1, -2),
        "outer.weight": feed_forward.outer.weight.swapaxes(-1, -2),
    }
    for name, stacked in layers.items():
        for index, weight in enumerate(stacked):
            weights[f"blocks.{index}.{name}"] = weight
    return {name: np.array(weight) for name, weight in weights.items()}


class OwnGeneration:
    """Greedy generation of so many tokens after prompts, with the methods of
    `generation.TorchGeneration`, with a cache or without."""

    def __init__(
        self,
        model: Model[TextInputs, TokenLogits],
        tokens: Int[Array, "batch prompt"],
        length: int,
        *,
        cached: bool,
    ):
        given = model, tokens, tokens.shape[-1], length, Draw(temperature=0.0)
        self._written = ft.partial(eqx.filter_jit(write), *given, cached=cached)

    def text(self) -> np.ndarray:
        """The prompts and what follows them."""
        return np.asarray(self._written())

    def turn(self) -> float:
        """Seconds to write it."""
        return seconds_of(self.text)


_GLASSLLM = dict(
    model_type="llama",
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=341,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    tie_word_embeddings=True,
)


def load_llama(path: str) -> tuple[Model[TextInputs, TokenLogits], str]:
    """A Llama, and its weights: a checkpoint, or random where glassllm cannot be fetched."""
    weights = path
    try:
        model = load_pretrained(path, dtype=jnp.float32)
    except InputError:
        if path != "glassllm":
            raise
        model = families()["llama"].build(Options(_GLASSLLM, Path(path)), frozenset())
        weights = "random, of the size of glassllm"
    if not is_built_as(model, LanguageModel):
        raise InputError(
            f"{path} holds a model of {type(model.read_out).__name__}, which writes no text."
        )
    return model, weights
