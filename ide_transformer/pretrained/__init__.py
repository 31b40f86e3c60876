"""Checkpoints of other libraries, read into models and written back."""

from .find import find_pretrained as find_pretrained
from .load import (
    load_onnx as load_onnx,
    load_pretrained as load_pretrained,
    save_pretrained as save_pretrained,
)
