"""The training of this package that is compared with PyTorch."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ide_transformer.tasks import Batch, CrossEntropy
from ide_transformer.training import Config, build_model_of_size, learning_rate, read_section
from ide_transformer.training.steps.layout import make_layout
from ide_transformer.training.steps.phases import make_phases

from .processes import timed_steps


_BATCHES = 16


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
    def config(self) -> Config:
        """The configuration of a run with these sizes."""
        names = ("layers", "context", "width", "heads")
        model = {name: getattr(self, name) for name in names}
        tree = {"model": model, "training": {"batch_size": self.batch}}
        return read_section(Config, tree, where="the benchmark")

    def batches(self, number: int) -> list[Batch]:
        """Batches of walks around the vocabulary with short random steps."""
        random = np.random.default_rng(0)
        batches = []
        for _ in range(number):
            steps = random.geometric(0.3, (self.batch, self.context + 1))
            tokens = (np.cumsum(steps, axis=1) % self.vocabulary).astype(np.int32)
            batches.append(Batch(tokens[:, :-1], tokens[:, 1:]))
        return batches


SETTINGS = {
    "small": Setting(4, 12, 64, 128),
    "medium": Setting(6, 8, 256, 256),
    "gpt2": Setting(12, 8, 1024, 768, heads=12, vocabulary=50257),
}


class OwnTraining:
    """The training of a run, with the methods of `theirs.TorchTraining`."""

    def __init__(self, setting: Setting):
        self.setting = setting
        self.batches = setting.batches(_BATCHES)
        config = setting.config
        sizes = {"vocabulary": setting.vocabulary}
        model = build_model_of_size(config, sizes, jax.random.key(0))
        self.initial_weights = torch_weights(model)
        phases = make_phases(config, model)
        (phase,) = phases
        (mesh,) = phase.meshes
        self._state = phases.start(model, jax.random.key(1))
        layout = make_layout(config.parallel)
        self._program = phase.lower(mesh, CrossEntropy(), layout, self.batches[0]).compile()
        self._next_batches = itertools.cycle(self.batches)

    def losses(self, steps: int) -> list[float]:
        """The loss of each of the next steps, before its update."""
        return [float(self._step()) for _ in range(steps)]

    def turn(self, steps: int) -> float:
        """Seconds for each of `steps` steps."""
        return timed_steps(self._step, steps)

    def state(self) -> dict[str, np.ndarray]:
        """The weights, by the names of the module in PyTorch."""
        return torch_weights(self._state.weights)

    def learning_rates(self) -> list[float]:
        """The learning rate of each step of a run."""
        config = self.setting.config
        steps = config.training.steps
        return np.asarray(learning_rate(config.optimizer, steps)(jnp.arange(steps))).tolist()

    def _step(self) -> Array:
        self._state, metrics = self._program(self._state, next(self._next_batches))
        return metrics["loss"]


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
