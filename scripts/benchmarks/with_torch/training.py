# PyTorch is optional.
# pyright: reportMissingImports=false
"""Training steps in PyTorch, to be made in a process of their own."""

import itertools

import numpy as np
import torch

from ide_transformer.tasks import Batch
from ide_transformer.training import OptimizerConfig

from .device import prepared_device
from .model import Transformer, make_optimizer
from .resident import peak_resident_mebibytes
from .settings import Setting
from .timed_steps import timed_steps


class TorchTraining:
    """The training of a `Transformer` as a run of this package trains: clipping, AdamW, and a
    learning rate that changes with every step.

    **Arguments:**

    - `setting`: the sizes.
    - `weights`: the initial weights, by the names of the module.
    - `batches`: taken one after the other, and again from the first.
    - `optimizer`: its betas, decay and clipping.
    - `learning_rates`: of the steps, the last one for all that follow.
    - `compiled`: whether the forward and backward pass go through `torch.compile`.
    """

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, np.ndarray],
        batches: list[Batch],
        optimizer: OptimizerConfig,
        learning_rates: list[float],
        compiled: bool,
    ):
        self._device = prepared_device()
        layers, _, context, width, heads, vocabulary = setting
        model = Transformer(layers, context, width, heads, vocabulary)
        model.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})
        self._model = model.to(self._device)
        self._loss = torch.compile(self._model) if compiled else self._model
        self._clip = optimizer.clip
        self._optimizer = make_optimizer(
            self._model,
            betas=(optimizer.beta1, optimizer.beta2),
            weight_decay=optimizer.weight_decay,
        )
        self._batches = itertools.cycle(batches)
        self._rates = itertools.chain(learning_rates, itertools.repeat(learning_rates[-1]))

    def losses(self, steps: int) -> list[float]:
        """The loss of each of the next steps, before its update."""
        return [self._step().item() for _ in range(steps)]

    def turn(self, steps: int) -> float:
        """Seconds for each of `steps` steps."""
        return timed_steps(self._step, steps, torch.Tensor.item)

    def peak_mebibytes(self) -> float | None:
        """Memory of one step without weights and the moments of the optimiser."""
        self._optimizer.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            self._step()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        return peak_resident_mebibytes(self._step)

    def state(self) -> dict[str, np.ndarray]:
        """The weights, by the names of the module."""
        return {n: x.detach().cpu().numpy() for n, x in self._model.state_dict().items()}

    def _step(self) -> torch.Tensor:
        batch = next(self._batches)
        tokens, targets = (torch.from_numpy(x).long().to(self._device) for x in batch)
        rate = next(self._rates)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss(tokens, targets)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        self._optimizer.step()
        return loss.detach()
