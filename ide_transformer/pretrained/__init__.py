from .load import (
    find_checkpoint as find_checkpoint,
    load_onnx as load_onnx,
    load_pretrained as load_pretrained,
    save_pretrained as save_pretrained,
)
