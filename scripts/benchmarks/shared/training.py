"""Compiled training steps of a language model."""

import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
from jaxtyping import Array

from ide_transformer.tasks import Batch, CrossEntropy
from ide_transformer.training import Config, build_model_of_size, read_section
from ide_transformer.training.steps.layout import make_layout
from ide_transformer.training.steps.parts import read_parts

from .problem import Shape


def config_of(
    depth: int, shape: Shape, model: Mapping[str, Any] = MappingProxyType({}), **training: Any
) -> Config:
    """The configuration of a language model with `depth` layers."""
    sizes = {"width": shape.width, "heads": shape.heads, "context": shape.context}
    tree = {
        "model": {"layers": depth, **sizes, **model},
        "training": {"batch_size": shape.batch, **training},
    }
    return read_section(Config, tree, "the benchmark")


class Training:
    """The training steps of a run, on the same few batches in turn."""

    def __init__(self, config: Config, sizes: Mapping[str, int], batches: Sequence[Batch]):
        self.model = build_model_of_size(config, sizes, jax.random.key(0))
        programs = read_parts(config).programs(self.model)
        (program,) = programs
        self.state = programs.start(self.model, jax.random.key(1))
        layout = make_layout(config.parallel)
        self.program = program.lower(0, CrossEntropy(), layout, batches[0]).compile()
        self._batches = itertools.cycle(batches)

    def step(self) -> dict[str, Array]:
        """The metrics of the next step."""
        self.state, metrics = self.program(self.state, next(self._batches))
        return metrics
