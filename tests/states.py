"""Models that are an equation alone."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp

import ide_transformer as ide
from ide_transformer.equation.domain import grid_of, lattice


class GridInputs(ide.AbstractInputs):
    """States `[..., tokens, width]` on a grid of equal spacing."""

    # A TokenDomain as a field would count as weights.
    numbers: tuple[int, ...] = eqx.field(static=True)
    spacing: tuple[float, ...] = eqx.field(static=True)
    period: tuple[float | None, ...] | None = eqx.field(static=True)
    width: int = eqx.field(static=True)

    def __init__(self, domain, width):
        self.numbers = grid_of("GridInputs", domain)
        self.spacing = domain.steps
        self.period = domain.period
        self.width = width

    @property
    def features(self):
        return self.width

    @property
    def domain(self):
        return dataclasses.replace(lattice(self.numbers, self.spacing), period=self.period)

    def embed(self, inputs, *, key=None):
        return ide.models.Embedded(jnp.asarray(inputs), self.domain)


def state_model(domain, width, *, control, constraint, **options):
    """`u(0) ↦ u(T)`, `[..., tokens, features]`."""
    parts = GridInputs(domain, width), control, constraint, ide.models.States()
    return ide.Model(*parts, **options)
