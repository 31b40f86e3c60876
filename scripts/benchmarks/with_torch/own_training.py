"""Training steps of this package, with the weights and batches that PyTorch is given too."""

import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ide_transformer.equation import LayerNorm
from ide_transformer.models import LanguageModel, Model, TextInputs, TokenLogits, is_built_as
from ide_transformer.tasks import CrossEntropy
from ide_transformer.training import (
    build_model_of_size,
    build_optimizer,
    initial_state,
    learning_rate,
    make_train_step,
)

from ..shared.timing import temporary_mebibytes
from .settings import Setting
from .timed_steps import timed_steps


_BATCHES = 16


class OwnTraining:
    """The training of a run, with the methods of `training.TorchTraining`."""

    def __init__(self, setting: Setting):
        config = setting.config
        self.setting = setting
        self.batches = setting.batches(_BATCHES)
        model = build_model_of_size(
            config, {"vocabulary": setting.vocabulary}, jax.random.key(0)
        )
        assert is_built_as(model, LanguageModel)
        # A copy on the host: the weights on the device are donated to the first step.
        self.initial_weights = torch_weights(model)
        optimizer = build_optimizer(config.optimizer, config.training.steps)
        self._state, static = initial_state(model, optimizer, jax.random.key(1))
        train_step: Any = make_train_step(optimizer, static, CrossEntropy())
        self.program = train_step.lower(self._state, self.batches[0]).compile()
        self._following = itertools.cycle(self.batches)

    def losses(self, steps: int) -> list[float]:
        """The loss of each of the next steps, before its update."""
        return [float(self._step()) for _ in range(steps)]

    def turn(self, steps: int) -> float:
        """Seconds for each of `steps` steps."""
        return timed_steps(self._step, steps)

    def peak_mebibytes(self) -> float:
        """Memory of one step without weights and the moments of the optimiser."""
        return temporary_mebibytes(self.program)

    def state(self) -> dict[str, np.ndarray]:
        """The weights, by the names of the module in PyTorch."""
        return torch_weights(self._state.weights)

    def learning_rates(self) -> list[float]:
        """Of all steps of a run."""
        config = self.setting.config
        schedule = learning_rate(config.optimizer, config.training.steps)
        return [float(rate) for rate in np.asarray(schedule(jnp.arange(config.training.steps)))]

    def _step(self) -> Array:
        self._state, metrics = self.program(self._state, next(self._following))
        return metrics["loss"]


def torch_weights(model: Model[TextInputs, TokenLogits]) -> dict[str, np.ndarray]:
    """The weights of a language model by the names of `model.Transformer`."""
    attention, feed_forward = model.control.intervals()
    weights = {
        "embedding": model.inputs.embedding,
        "positions": model.inputs.positions,
        "output_gain": cast(LayerNorm, model.read_out.normalization).gain,
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
