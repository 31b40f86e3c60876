"""The base class of models that learn classes of images."""

from .model import AbstractModel


class AbstractImageClassifier(AbstractModel):
    """A model of images, `[..., rows, columns, channels]`, that can be trained to tell classes:
    with a head, its outputs are logits, `[..., classes]`."""
