# PyTorch is optional.
# pyright: reportMissingImports=false
"""The device of PyTorch and the precision of its products."""

import torch


def prepared_device() -> torch.device:
    """The GPU, if there is one, else the CPU. Products of float32 are made in full float32, as
    by `full_float32` here."""
    torch.set_float32_matmul_precision("highest")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
