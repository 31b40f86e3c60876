"""The base class of models that learn classes of images."""

from .model import Model


class AbstractImageClassifier(Model):
    """A model of images, `[..., rows, columns, channels]`, that can be trained to tell classes:
    with a head, its outputs are logits, `[..., classes]`."""
