"""The base class of models that learn classes of images."""

from .model import AbstractModel


class AbstractImageClassifier(AbstractModel):
    """A model to be trained whose inputs are images, `[..., rows, columns, channels]`, and
    whose outputs are logits of classes, `[..., classes]`."""
