"""Models of images by transformers, for the heavy tests."""

import numpy as np
import pytest
from golden.make_images import original, run, states_or_logits
from helpers import largest


COMMON = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=4, patch_size=4)
WIDE = dict(image_size=[8, 16], intermediate_size=40)
VIT = dict(image_size=16, intermediate_size=40)
DINOV2 = dict(image_size=16)


def checkpoint(folder, name, options, dtype="float64"):
    """A model of the library with random parameters, and its checkpoint."""
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, name)
    model = original(kind, kind.config_class(**(COMMON | options)), dtype)
    model.save_pretrained(folder)
    return model


def output_of(model, images, **options):
    """The outputs of `ImageEncoder`, computed by the library."""
    if "MaskedImageModeling" in type(model).__name__ or model.config.num_labels == 0:
        model = model.base_model
    return states_or_logits(run(model, images, **options))


def relative(x, y):
    return largest(x, y) / float(np.abs(y).max())
