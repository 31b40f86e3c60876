# PyTorch is optional.
# pyright: reportMissingImports=false
"""The equal training in PyTorch, in a separate process."""

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ide_transformer.tasks import Batch
from ide_transformer.training import OptimizerConfig

from .ours import Setting
from .processes import timed_steps


class Block(nn.Module):
    """A pre-norm layer: causal attention, then a feed-forward with the exact GELU."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.attention_gain = nn.Parameter(torch.ones(width))
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.feed_forward_gain = nn.Parameter(torch.ones(width))
        self.inner = nn.Linear(width, 4 * width, bias=False)
        self.outer = nn.Linear(4 * width, width, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        batch, tokens, width = u.shape
        v = functional.layer_norm(u, (width,), self.attention_gain)
        query, key, value = (
            x.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for x in self.query_key_value(v).split(width, dim=2)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        u = u + self.output(mixed.transpose(1, 2).reshape(batch, tokens, width))
        v = functional.layer_norm(u, (width,), self.feed_forward_gain)
        return u + self.outer(functional.gelu(self.inner(v)))


class Transformer(nn.Module):
    """The character model of configs/shakespeare_ordinary.yaml; its output is the mean
    cross-entropy."""

    def __init__(self, layers: int, context: int, width: int, heads: int, vocabulary: int):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, width))
        self.positions = nn.Parameter(torch.empty(context, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.output_gain = nn.Parameter(torch.ones(width))

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        u = functional.embedding(tokens, self.embedding) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            u = block(u)
        u = functional.layer_norm(u, u.shape[-1:], self.output_gain)
        logits = functional.linear(u, self.embedding)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class TorchTraining:
    """The training of a `Transformer` as a run of this package trains: clipping, AdamW, and a
    learning rate that changes with every step."""

    def __init__(
        self,
        setting: Setting,
        weights: dict[str, np.ndarray],
        batches: list[Batch],
        optimizer: OptimizerConfig,
        learning_rates: list[float],
        compiled: bool,
    ):
        # In full float32, as here.
        torch.set_float32_matmul_precision("highest")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        layers, _, context, width, heads, vocabulary = setting
        model = Transformer(layers, context, width, heads, vocabulary)
        model.load_state_dict({name: torch.tensor(x) for name, x in weights.items()})
        self._model = model.to(self._device)
        self._loss = torch.compile(self._model) if compiled else self._model
        self._clip = optimizer.clip
        # Only matrices decay.
        matrices = [x for x in self._model.parameters() if x.dim() >= 2]
        vectors = [x for x in self._model.parameters() if x.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": optimizer.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        betas = optimizer.beta1, optimizer.beta2
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
        self._batches = itertools.cycle(batches)
        self._rates = itertools.chain(learning_rates, itertools.repeat(learning_rates[-1]))

    def losses(self, steps: int) -> list[float]:
        """The loss of each of the next steps, before its update."""
        return [self._step().item() for _ in range(steps)]

    def turn(self, steps: int) -> float:
        """Seconds for each of `steps` steps."""
        return timed_steps(self._step, steps, torch.Tensor.item)

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
