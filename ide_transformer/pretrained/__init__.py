"""Checkpoints of other libraries, read into models and written back."""

from .find import find_checkpoint as find_checkpoint
from .load import (
    load_onnx as load_onnx,
    load_pretrained as load_pretrained,
    save_pretrained as save_pretrained,
)
