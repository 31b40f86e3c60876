"""Leaves out one layer at a time, each time the one whose loss is least."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Array, Float

from ide_transformer.dynamics import in_layers, take_layers, whole_layers
from ide_transformer.models import Model


def eliminate(
    model: Model, score: Callable[[Model], Float[Array, ""]]
) -> Iterator[tuple[tuple[int, ...], Model]]:
    """Leave out one layer at a time, each time the layer without which `score` is least, down
    to one layer. Yields the layers that are left and their model.

    With the loss on calibration text as the score it is SLEB (Song et al., arXiv 2402.09025).

    **Arguments:** `score`, compiled, from a model to a number; not finite counts as worst.
    """
    native = in_layers(model)
    operators = model.equation.num_operators
    kept = tuple(range(model.layers))

    def without(layer: int) -> tuple[tuple[int, ...], Model]:
        layers = tuple(x for x in kept if x != layer)
        return layers, take_layers(native, whole_layers(layers, operators))

    while len(kept) > 1:
        scores = [float(np.nan_to_num(score(without(x)[1]), nan=np.inf)) for x in kept]
        kept, shorter = without(kept[int(np.argmin(scores))])
        yield kept, shorter
