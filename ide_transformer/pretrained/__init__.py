"""Loads checkpoints of other libraries as models, and writes models as checkpoints."""

from . import make as make
from .checkpoint import (
    find_pretrained as find_pretrained,
    load_pretrained as load_pretrained,
    tokenizer_file as tokenizer_file,
)
from .families import families as families
from .family import (
    Family as Family,
    Placement as Placement,
    block as block,
    layers_by as layers_by,
    linear as linear,
    weights_of as weights_of,
)
from .files import write_tensors as write_tensors
from .options import Options as Options
from .save import save_pretrained as save_pretrained, tensors_of as tensors_of
