"""A Fourier neural operator of neuraloperator, trained on the same batches."""
# PyTorch and neuraloperator are optional.
# pyright: reportMissingImports=false

import time
from pathlib import Path
from typing import Any

import numpy as np

from ide_transformer import Field, InputError, TokenDomain
from ide_transformer.equation import interpolation
from ide_transformer.tasks import AbstractTask, Batch, Part
from ide_transformer.training import learning_rate

from . import ours
from .settings import CONTEXTS, Cell, Test


MODES, CHANNELS, LAYERS = {"burgers": (12,), "darcy": (8, 8)}, 32, 4
DECAY = 1e-4


def train_and_test(
    cell: Cell, rate: float, seed: int, steps: int, tests: dict[str, Test], runs: Path
) -> dict[str, Any]:
    """Trains a run, and returns its errors, parameters and seconds."""
    try:
        import torch
        from neuralop.models import FNO
    except ImportError as error:
        raise InputError(
            f"{error}. Beside torch, run\n"
            "    pip install --no-deps --target FOLDER neuraloperator==2.0.0 tensorly "
            "tensorly-torch opt-einsum requests urllib3 certifi\nand set PYTHONPATH=FOLDER."
        ) from None
    torch.manual_seed(seed)
    config = ours.settings_of(cell, rate, seed, steps)
    rates = np.asarray(learning_rate(config.optimizer, steps)(np.arange(steps))).tolist()
    task, start = cell.task(), time.perf_counter()
    many = _values(task.batch(0, 256, 0).targets)
    model = _OnGrid(FNO, cell.bed, float(many.mean()), float(many.std()))
    weights = list(model.net.parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=DECAY)
    for step, now in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = now
        loss = model.errors(task.batch(step, config.training.batch_size, seed)).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, config.optimizer.clip)
        optimizer.step()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        validation = model.mean_error(task, "validation")
        found = {name: model.mean_error(cell.task(x), "test") for name, x in tests.items()}
    count = sum(x.numel() * (2 if x.is_complex() else 1) for x in weights)
    return {"validation_loss": validation, "parameters": count, "seconds": seconds, **found}


def settings_of(cell: Cell, rate: float, seed: int, steps: int) -> Any:
    """All that is chosen here, and the configuration with the learning rates of a run."""
    own = MODES[cell.bed], CHANNELS, LAYERS, DECAY
    return *own, ours.settings_of(cell, rate, seed, steps)


def _values(x: Any) -> np.ndarray:
    return np.asarray(x.values if isinstance(x, Field) else x)


class _OnGrid:
    """The network on a grid; values at other points are interpolated to the grid, and its
    outputs from there. A finer whole grid is given to it as it is."""

    def __init__(self, fno: Any, bed: str, mean: float, deviation: float):
        self.dimension, self.mean, self.deviation = len(MODES[bed]), mean, deviation
        sizes = dict(in_channels=1, out_channels=1, hidden_channels=CHANNELS, n_layers=LAYERS)
        self.net = fno(n_modes=MODES[bed], positional_embedding="grid", **sizes)
        size = CONTEXTS[bed]
        line = TokenDomain.midpoint(size)
        self.grid = line if self.dimension == 1 else TokenDomain.periodic((size, size))
        self._maps: dict[bytes, tuple[Any, Any]] = {}

    def mean_error(self, task: AbstractTask, part: Part) -> float:
        errors = [self.errors(batch).numpy() for batch in task.held_out(16, part=part)]
        return float(np.concatenate(errors).mean())

    def errors(self, batch: Batch) -> Any:
        """The relative error of each sample."""
        import torch

        targets = torch.from_numpy(_values(batch.targets))
        off = self(batch.inputs) - targets
        domain = batch.targets.domain if isinstance(batch.targets, Field) else None
        shares = torch.ones(())
        if domain is not None and domain.weights is not None:
            shares = torch.from_numpy(np.array(domain.shares, np.float32))
        return ((shares * off**2).sum(1) / (shares * targets**2).sum(1)).sqrt()

    def __call__(self, inputs: Any) -> Any:
        import torch

        values = torch.from_numpy(_values(inputs))
        whole = not isinstance(inputs, Field) or inputs.domain.grid is not None
        there, back = (None, None) if whole else self._between(inputs.domain)
        values = values if there is None else values @ there.T
        side = round(values.shape[1] ** (1 / self.dimension))
        outputs = self.net(values.reshape(-1, 1, *(side,) * self.dimension))
        outputs = (self.mean + self.deviation * outputs).reshape(len(values), -1)
        return outputs if back is None else outputs @ back.T

    def _between(self, domain: TokenDomain) -> tuple[Any, Any]:
        """Matrices from values at points to the grid, and back."""
        key = np.asarray(domain.points).tobytes()
        if key not in self._maps:
            if len(self._maps) >= 256:
                self._maps.clear()
            # No point wraps around the unit square.
            plain = TokenDomain(self.grid.points, None, self.grid.grid, self.grid.spacing)
            self._maps[key] = _matrix(domain, plain), _matrix(plain, domain)
        return self._maps[key]


def _matrix(source: TokenDomain, target: TokenDomain) -> Any:
    """Linear interpolation; beyond the outermost points of a line the value of the last."""
    import torch

    if source.dimension == 1:
        x, y = (np.asarray(d.points)[:, 0].astype(float) for d in (source, target))
        order, eye = np.argsort(x), np.eye(len(x))
        columns = [np.interp(y, x[order], column) for column in eye[:, order]]
        return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)
    found = interpolation(source, target)
    matrix = np.zeros((target.num_tokens, source.num_tokens), np.float32)
    rows, columns, values = map(np.asarray, (found.rows, found.columns, found.values))
    np.add.at(matrix, (rows, columns), values)
    return torch.from_numpy(matrix)
