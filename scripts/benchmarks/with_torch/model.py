# PyTorch is optional.
# pyright: reportMissingImports=false
"""The character model of configs/shakespeare.yaml in PyTorch: same shapes, same operations,
same optimiser. Importing this module needs PyTorch."""

import torch
from torch import Tensor, nn
from torch.nn import functional


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
    """Token and position embeddings, the layers, a layer norm and the tied read-out; its
    output is the mean cross-entropy."""

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


def make_optimizer(
    model: nn.Module, *, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW, fused, that decays matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, fused=True)
